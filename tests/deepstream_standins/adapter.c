/* Stands in for libnvds_kafka_proto.so and libnvds_mqtt_proto.so: the functions of nvds_msgapi.h, into a file.
 *
 * STANDIN_BROKER names the file. The host says how it behaves: "stalls" answers nothing, "refuses" connects never,
 * "restarts" is gone once after three messages, any other answers at the next do_work. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*connected)(void *, int);
typedef void (*sent)(void *, int);
static char host[64];
static connected on_change;
static sent on_sent;
static int unanswered, messages, connections;

void *nvds_msgapi_connect(char *address, connected change, char *config) {
  sscanf(address, "%63[^;]", host);
  on_change = change;
  FILE *file = fopen(getenv("STANDIN_BROKER"), "a");
  fprintf(file, "connect %s %s\n", address, config ? config : "-");
  fclose(file);
  return strcmp(host, "refuses") ? &connections + 0 * connections++ : NULL;
}

int nvds_msgapi_send_async(void *handle, char *topic, const uint8_t *payload, size_t size, sent callback, void *user) {
  on_sent = callback;
  unanswered++;
  FILE *file = fopen(getenv("STANDIN_BROKER"), "a");
  fprintf(file, "%s %.*s\n", topic, (int)size, payload);
  fclose(file);
  if (++messages == 3 && !strcmp(host, "restarts")) on_change(handle, 1);
  return 0;
}

void nvds_msgapi_do_work(void *handle) {
  for (; unanswered && strcmp(host, "stalls"); unanswered--) on_sent(NULL, 0);
}

int nvds_msgapi_disconnect(void *handle) { return unanswered = 0; }
