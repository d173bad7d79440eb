"use strict";
// Asks for the newest frame whenever the last one is drawn. Opacity, layout, wipe and pause are this page's own.
const SHORTEST_MS = 40; // from one frame to the next: what the eye needs, and no more of the machine
const AGAIN_MS = 2000; // after the runner did not answer
const KEPT = 120; // samples in a plot
const PLOT = { width: 480, height: 110, left: 4, top: 26, bottom: 104 };

const find = (name) => document.getElementById(name);
const [status, pause, source, opacity, layout, cut, stages, figures] = [
  "status", "pause", "source", "opacity", "layout", "cut", "stages", "figures",
].map(find);
const sleep = (time) => new Promise((done) => setTimeout(done, time));
let serial = 0, paused = false, resume = () => {}, asking = new AbortController();
let last = null; // what is on the page, to lay it out anew
let seen = new Map(); // class: its colour; a class that was seen keeps its row

function make(tag, words = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = words;
  if (kind) made.className = kind;
  return made;
}

function say(words) {
  if (status.textContent !== words) status.textContent = words;
}

function parse(buffer) {
  const view = new DataView(buffer), parts = [];
  for (let at = 0; at < buffer.byteLength;) {
    const size = view.getUint32(at, true);
    parts.push(new Uint8Array(buffer, at + 4, size));
    at += 4 + size;
  }
  return { facts: JSON.parse(new TextDecoder().decode(parts[0])), pictures: parts.slice(1) };
}

const decode = (bytes) => createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });

// Class ids come as a grey picture, or as red + 256·green where they are more; their colours are laid on here.
function coloured(ids, palette) {
  const canvas = new OffscreenCanvas(ids.width, ids.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(ids, 0, 0);
  const picture = pen.getImageData(0, 0, ids.width, ids.height);
  const values = palette.length > 256 ? 65536 : 256;
  const table = new Uint32Array(values).fill(0xff000000);
  palette.forEach((colour, index) => {
    const value = parseInt(colour.slice(1), 16);
    table[index] = 0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16);
  });
  const pixels = new Uint32Array(picture.data.buffer);
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = table[pixels[at] & (values - 1)];
  pen.putImageData(picture, 0, 0);
  return canvas;
}

function put(canvas, picture, words) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
}

function lay({ facts, frame, labels }) {
  const wiped = labels.length > 1 && layout.value === "wipe";
  document.querySelector(".two").hidden = labels.length < 2;
  document.querySelector(".over").hidden = !wiped;
  stages.classList.toggle("wiped", wiped);
  const groups = wiped ? [labels.map((_, index) => index)] : labels.map((_, index) => [index]);
  while (stages.children.length > groups.length) stages.lastChild.remove();
  while (stages.children.length < groups.length) {
    const stage = make("figure", "", "stage");
    stage.append(make("div", "", "stack"), make("figcaption", "", "note"));
    stages.append(stage);
  }
  groups.forEach((group, place) => {
    const [stack, caption] = stages.children[place].children;
    while (stack.children.length > group.length + 1) stack.lastChild.remove();
    while (stack.children.length < group.length + 1) stack.append(make("canvas"));
    put(stack.children[0], frame, `frame ${facts.index} of ${facts.sources[source.selectedIndex]}`);
    group.forEach((index, layer) => {
      const canvas = stack.children[layer + 1];
      canvas.className = wiped ? `labels ${layer ? "right" : "left"}` : "labels";
      put(canvas, labels[index], `classes by ${facts.models[index].name || "the model"}`);
    });
    caption.textContent = group.map((index) => facts.models[index].name).join(" | ");
  });
}

function list(facts) {
  for (const model of facts.models) {
    for (const [name] of model.areas) seen.set(name, model.palette[model.classes.indexOf(name)]);
  }
  const heads = ["Class", ...facts.models.map((model) => model.name || "Share")];
  find("models").replaceChildren(...heads.map((words, column) => {
    const head = make("th", words, column ? "number" : "");
    head.scope = "col";
    return head;
  }));
  const order = [...new Set(facts.models.flatMap((model) => model.classes))].filter((name) => seen.has(name));
  find("areas").replaceChildren(...order.map((name) => {
    const row = make("tr"), head = make("th"), swatch = make("span", "", "swatch");
    swatch.style.background = seen.get(name);
    head.scope = "row";
    head.append(swatch, name);
    row.append(head);
    for (const model of facts.models) {
      const share = (model.areas.find(([one]) => one === name) || [name, 0])[1];
      row.append(make("td", `${(100 * share).toFixed(1)} %`, "number"));
    }
    return row;
  }));
}

function drawing(tag, facts, words = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
  made.textContent = words;
  return made;
}

function plot(title, unit) {
  const { width, height, left, top, bottom } = PLOT;
  const picture = drawing("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const line = drawing("polyline", {}), words = drawing("text", { x: left, y: 16 });
  picture.append(drawing("line", { x1: left, x2: width, y1: bottom, y2: bottom }), line, words);
  find("plots").append(picture);
  let values = [];
  return {
    clear: () => { values = []; },
    add: (value) => {
      values = [...values, value].slice(-KEPT);
      const most = Math.max(...values, 1e-9);
      const place = (one, index) =>
        `${(left + (index * (width - 2 * left)) / (KEPT - 1)).toFixed(1)},${(bottom - ((bottom - top) * one) / most).toFixed(1)}`;
      line.setAttribute("points", values.map(place).join(" "));
      words.textContent = `${title} ${value.toFixed(1)} ${unit}, at most ${most.toFixed(1)}`;
      picture.setAttribute("aria-label", `${words.textContent} in the last ${values.length} frames shown`);
    },
  };
}

const plots = { fps: plot("Throughput", "FPS"), latency: plot("Latency", "ms") };

function choose(names) {
  const shown = [...source.options].map((option) => option.textContent);
  if (names.length === shown.length && names.every((name, index) => name === shown[index])) return;
  const chosen = Math.max(source.selectedIndex, 0);
  source.replaceChildren(...names.map((name) => make("option", name)));
  source.selectedIndex = Math.min(chosen, names.length - 1);
}

async function show({ facts, pictures }) {
  const [frame, ...ids] = await Promise.all(pictures.map(decode));
  if (paused) return; // pressed in the meantime
  const labels = ids.map((one, index) => coloured(one, facts.models[index].palette));
  serial = facts.serial;
  last = { facts, frame, labels };
  lay(last);
  list(facts);
  plots.fps.add(facts.fps);
  plots.latency.add(facts.latency_ms);
  const lost = facts.dropped ? `, ${facts.dropped} frames dropped` : "";
  figures.textContent =
    `frame ${facts.index} at ${facts.time_s.toFixed(2)} s, ${facts.fps.toFixed(1)} FPS, ${facts.latency_ms.toFixed(0)} ms${lost}`;
  say("Running.");
}

async function ask() {
  asking = new AbortController();
  try {
    const address = `frame?source=${Math.max(source.selectedIndex, 0)}&after=${serial}`;
    const answer = await fetch(address, { signal: asking.signal });
    if (!answer.ok) throw new Error(answer.statusText);
    const parsed = parse(await answer.arrayBuffer());
    choose(parsed.facts.sources);
    if (parsed.pictures.length && !paused) await show(parsed);
  } catch (error) {
    if (error.name === "AbortError") return; // another source was chosen
    say("The stream has ended.");
    await sleep(AGAIN_MS);
  }
}

async function follow() {
  for (;;) {
    if (paused) await new Promise((done) => { resume = done; });
    const began = performance.now();
    await ask();
    await sleep(SHORTEST_MS - (performance.now() - began));
    await new Promise(requestAnimationFrame); // never, while nobody looks
  }
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) say("Paused; the stream itself goes on.");
  else {
    say("Running.");
    resume();
  }
});
source.addEventListener("change", () => {
  serial = 0;
  seen = new Map();
  Object.values(plots).forEach((one) => one.clear());
  if (paused) pause.click();
  asking.abort();
});
const style = (name, input, value) => {
  const set = () => stages.style.setProperty(name, value(input.value));
  input.addEventListener("input", set);
  set();
};
style("--opacity", opacity, (value) => value / 100);
style("--cut", cut, (value) => `${value}%`);
layout.addEventListener("change", () => last && lay(last));
follow();
