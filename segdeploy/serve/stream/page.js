"use strict";
// Asks for the newest frame whenever the last one is drawn. Opacity, layout, wipe, pause and hidden classes are this
// page's own.
const SHORTEST_MS = 40; // from one frame to the next: what the eye needs, and no more of the machine
const AGAIN_MS = 2000; // after the runner did not answer
const KEPT = 120; // samples in a plot
const PLOT = { width: 480, height: 110, left: 4, top: 26, bottom: 104 };

const find = (name) => document.getElementById(name);
const [status, pause, source, opacity, layout, cut, whole, stages, under, figures] = [
  "status", "pause", "source", "opacity", "layout", "cut", "whole", "stages", "under", "figures",
].map(find);
const sleep = (time) => new Promise((done) => setTimeout(done, time));
let serial = 0, paused = false, resume = () => {}, asking = new AbortController();
let last = null; // what is on the page, to lay it out anew
let seen = new Map(); // class: its colour; a class that was seen keeps its row
const hidden = new Set(); // classes that are not drawn

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

// Class ids come as a grey picture, or as red + 256·green where they are more.
function idsOf(picture, model) {
  const { width, height } = picture;
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer);
  return { width, height, values: Uint16Array.from(pixels, (one) => one & (model.palette.length > 256 ? 65535 : 255)) };
}

function coloured({ width, height, values }, { classes, palette }) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d"), picture = pen.createImageData(width, height);
  const table = new Uint32Array(65536).fill(0xff000000), pixels = new Uint32Array(picture.data.buffer);
  palette.forEach((colour, index) => {
    const value = parseInt(colour.slice(1), 16);
    table[index] = 0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16);
    if (hidden.has(classes[index])) table[index] = 0;
  });
  for (let at = 0; at < values.length; at += 1) pixels[at] = table[values[at]];
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

function lay({ facts, frame, ids }) {
  const labels = ids.map((one, index) => coloured(one, facts.models[index]));
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

// A name that is too long for its column is folded after a dot or a dash.
const foldable = (name) => name.replace(/[-._]/g, "$&\u200b");

function list(facts) {
  for (const model of facts.models) {
    for (const [name] of model.areas) seen.set(name, model.palette[model.classes.indexOf(name)]);
  }
  const several = facts.models.length > 1;
  const heads = ["Class", ...facts.models.map((model) => (several && foldable(model.name)) || "Share")];
  const order = [...new Set(facts.models.flatMap((model) => model.classes))].filter((name) => seen.has(name));
  const key = JSON.stringify([heads, order]);
  if (areas.key !== key) rebuild(heads, order);
  areas.key = key;
  order.forEach((name, place) => facts.models.forEach((model, column) => {
    const share = (model.areas.find(([one]) => one === name) || [name, 0])[1];
    areas.rows[place].cells[column + 1].textContent = `${(100 * share).toFixed(1)} %`;
  }));
}

const areas = { key: "", rows: [] };

function rebuild(heads, order) {
  const focused = document.activeElement.dataset.name;
  find("models").replaceChildren(...heads.map((words, column) => {
    const head = make("th", words, column ? "number" : "");
    head.scope = "col";
    return head;
  }));
  areas.rows = order.map((name) => {
    const row = make("tr"), head = make("th"), swatch = make("span", "", "swatch"), button = make("button", "", "class");
    swatch.style.background = seen.get(name);
    button.type = "button";
    button.dataset.name = name;
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    button.append(swatch, name);
    button.addEventListener("click", () => toggle(name, button));
    head.scope = "row";
    head.append(button);
    row.append(head, ...heads.slice(1).map(() => make("td", "", "number")));
    return row;
  });
  find("areas").replaceChildren(...areas.rows);
  const again = areas.rows.map((row) => row.querySelector("button")).find((one) => one.dataset.name === focused);
  if (focused !== undefined && again) again.focus();
}

function toggle(name, button) {
  if (!hidden.delete(name)) hidden.add(name);
  button.setAttribute("aria-pressed", String(!hidden.has(name)));
  if (last) lay(last);
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
      words.textContent = `${title} ${rate(value)} ${unit}, at most ${most.toFixed(1)}`;
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

const rate = (fps) => fps.toFixed(fps < 1 ? 2 : 1);

function title(facts) {
  const names = facts.models.map((model) => model.name).filter(Boolean);
  const words = [facts.sources[source.selectedIndex], ...names].join(" · ");
  find("title").textContent = words;
  document.title = `${words} · segdeploy`;
}

async function show({ facts, pictures }) {
  const [frame, ...ids] = await Promise.all(pictures.map(decode));
  if (paused) return; // pressed in the meantime
  serial = facts.serial;
  last = { facts, frame, ids: ids.map((one, index) => idsOf(one, facts.models[index])) };
  lay(last);
  list(facts);
  title(facts);
  plots.fps.add(facts.fps);
  plots.latency.add(facts.latency_ms);
  const lost = facts.dropped ? `, ${facts.dropped} frames dropped` : "";
  figures.textContent =
    `frame ${facts.index} at ${facts.time_s.toFixed(2)} s, ${rate(facts.fps)} FPS, ${facts.latency_ms.toFixed(0)} ms${lost}`;
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

const move = (input, by) => {
  input.value = Number(input.value) + by;
  input.dispatchEvent(new Event("input"));
};
const isWiped = () => stages.classList.contains("wiped");

function fill() {
  if (!document.fullscreenEnabled) return;
  if (document.fullscreenElement) document.exitFullscreen();
  else stages.requestFullscreen();
}
whole.addEventListener("click", fill);
whole.hidden = !document.fullscreenEnabled; // as in a telephone's browser

const KEYS = {
  " ": () => pause.click(),
  f: fill,
  ArrowLeft: () => move(isWiped() ? cut : opacity, -5),
  ArrowRight: () => move(isWiped() ? cut : opacity, 5),
};
document.addEventListener("keydown", (event) => {
  const own = event.target.closest("button, input, select"); // which has keys of its own
  if (own || event.ctrlKey || event.altKey || event.metaKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

// Where a picture is pointed at, from 0 to 1, and which one.
function pointed(event) {
  const stack = event.target.closest(".stack");
  if (!stack) return null;
  const box = stack.getBoundingClientRect();
  const within = (share) => Math.min(Math.max(share, 0), 1 - 1e-9);
  const x = within((event.clientX - box.left) / box.width), y = within((event.clientY - box.top) / box.height);
  return { x, y, place: [...stages.children].indexOf(stack.parentNode) };
}

stages.addEventListener("pointermove", (event) => {
  const at = pointed(event);
  if (!at || !last) return;
  if (isWiped() && event.buttons) move(cut, 100 * at.x - Number(cut.value));
  const model = isWiped() ? Number(100 * at.x > Number(cut.value)) : at.place;
  const ids = last.ids[model];
  const id = ids.values[Math.floor(at.y * ids.height) * ids.width + Math.floor(at.x * ids.width)];
  under.textContent = last.facts.models[model].classes[id] ?? "no class";
});
stages.addEventListener("pointerdown", (event) => {
  if (isWiped() && pointed(event)) move(cut, 100 * pointed(event).x - Number(cut.value));
});
stages.addEventListener("pointerleave", () => { under.textContent = ""; });
follow();
