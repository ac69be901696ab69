"use strict";
// The page is readable without this; it fills the table, the heatmap and the maps from the JSON beside it. Names of
// layers and files reach the page as text only, and nothing is ever requested.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PNG = "data:image/png;base64,";

function el(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value, textContent: text })));
}

// ---- light and dark ----

function theme() {
  const root = document.documentElement, button = $("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  show();
}

// ---- the section that is read ----

function sections() {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
    const first = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const id of links.keys()) watch.observe($(id));
}

// ---- tables that are sorted by their heads ----

function sortBy(table, head, direction) {
  const column = [...head.parentNode.children].indexOf(head);
  const numeric = head.dataset.kind !== "text";
  const value = (row) => {
    const cell = row.children[column], text = cell.dataset.value ?? cell.textContent;
    return numeric ? (text === "" || text === "nan" ? NaN : Number(text)) : text;
  };
  const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort(([a], [b]) => {
    if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function sortable(table) {
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.dataset.kind === "text" || head.dataset.key === "order" ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(table, head, head.getAttribute("aria-sort") === first ? other : first);
    });
  }
}

// ---- the table of layers ----

const column = Object.fromEntries(data.columns.map((name, i) => [name, i]));

// The rows of a region; layers that are not split into regions are in all of them.
function rowsOf(run, region) {
  const split = new Set(run.rows.filter((r) => r[column.region] !== "all").map((r) => r[column.layer]));
  return run.rows.filter((r) => region === "every" || r[column.region] === region
    || (r[column.region] === "all" && !split.has(r[column.layer])));
}

function cellText(kind, value) {
  if (value === null || kind === "text") return value ?? "";
  if (kind === "count") return Number(value).toLocaleString("en");
  if (kind === "bits") return Number(value).toFixed(2);
  if (value === 0 || value === 1) return String(100 * value);
  return value < 0.0005 ? "<0.1" : value > 0.9995 ? ">99.9" : (100 * value).toFixed(1);
}

function cellOf(head, row, order) {
  const { key, kind } = head.dataset;
  const parts = key.split("+").map((name) => (name === "order" ? order : row[column[name]]));
  const value = parts.length > 1 && parts[0] !== null ? parts[0] + parts[1] : parts[0];
  const text = cellText(kind, value);
  const cell = el("td", { textContent: text, className: kind === "text" ? "" : "n" });
  if (kind !== "text") cell.dataset.value = value ?? "";
  if (text === "0") cell.classList.add("none");
  return cell;
}

function fillTable() {
  const table = $("layer-table"), heads = [...table.tHead.rows[0].cells], run = data.runs[$("table-run").value];
  const words = $("table-filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const names = [...new Set(run.rows.map((r) => r[column.layer]))];
  const order = new Map(names.map((name, i) => [name, i + 1]));
  const main = new Set(run.main);
  const every = $("table-layers").value === "all";
  const chosen = rowsOf(run, $("table-region").value).filter((row) => {
    const text = `${row[column.layer]} ${row[column.operator]}`.toLowerCase();
    return (every || main.has(row[column.layer]) || words.length) && words.every((word) => text.includes(word));
  });
  table.tBodies[0].replaceChildren(...chosen.map((row) =>
    el("tr", {}, ...heads.map((head) => cellOf(head, row, order.get(row[column.layer]))))));
  const sorted = heads.find((head) => head.hasAttribute("aria-sort"));
  if (sorted) sortBy(table, sorted, sorted.getAttribute("aria-sort"));
  const shown = new Set(chosen.map((row) => row[column.layer])).size;
  $("table-count").textContent = `${shown} of ${names.length} layers, ${chosen.length} rows.`;
}

function csvText(run) {
  const quoted = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [data.columns, ...run.rows].map((row) => row.map(quoted).join(",") + "\n").join("");
}

function download() {
  const run = data.runs[$("table-run").value];
  const url = URL.createObjectURL(new Blob([csvText(run)], { type: "text/csv" }));
  el("a", { href: url, download: `${run.folder}_table.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function regionNames() {
  return data.regions.map((region) => [region, region === "all" ? "all of the layer" : region]);
}

function layerTable() {
  options($("table-run"), data.runs.map((run, i) => [i, run.label]));
  document.querySelector(".run-choice").hidden = data.runs.length < 2;
  options($("table-region"), [...regionNames(), ["every", "every region"]]);
  const most = Math.max(...data.runs.map((run) => new Set(run.rows.map((r) => r[column.layer])).size));
  $("table-layers").value = most > 60 ? "main" : "all";
  for (const id of ["table-run", "table-region", "table-layers"]) $(id).addEventListener("change", fillTable);
  $("table-filter").addEventListener("input", fillTable);
  $("table-csv").addEventListener("click", download);
  fillTable();
}

// ---- the heatmap ----

const heat = { lines: [], at: null };

function colourOf(bits, most) {
  return data.palette[Math.round(Math.min(Math.max(bits / most, 0), 1) * (data.levels - 1))];
}

// From below: the numbers in the colour of their mean, then each class as high as its share.
function drawCells(canvas, cells, most) {
  const height = 36, context = canvas.getContext("2d");
  const wide = cells.length > 12 ? 1 : 60, gap = wide > 1 ? 1 : 0; // few cells are set apart
  Object.assign(canvas, { width: cells.length * wide, height });
  cells.forEach((cell, x) => {
    if (!cell) return;
    const [bits, ...shares] = cell;
    let low = height;
    shares.forEach((share, kind) => {
      const next = low - share * height;
      context.fillStyle = kind === 0 ? colourOf(bits ?? 0, most) : data.classes[kind].colour;
      if (share > 0) context.fillRect(x * wide, Math.round(next), wide - gap, Math.round(low) - Math.round(next));
      low = next;
    });
  });
}

function heatWords(line, x) {
  const group = data.groups[$("heat-group").value], cell = line.cells[x];
  const where = `${line.name}, ${group.heat.columns[x]}`;
  if (!cell) return `${where}: nothing here.`;
  const [bits, ...shares] = cell;
  const parts = shares.flatMap((share, kind) =>
    share > 0 ? [`${(100 * share).toFixed(1)} % ${data.classes[kind].name}`] : []);
  return `${where}: ${bits === null ? "no significant bits" : `${bits.toFixed(2)} bits`}; ${parts.join(", ")}.`;
}

function meanText(cells) {
  const known = cells.filter((cell) => cell && cell[0] !== null).map((cell) => cell[0]);
  if (!known.length) return "–";
  const ends = [Math.min(...known).toFixed(1), Math.max(...known).toFixed(1)];
  return ends[0] === ends[1] ? ends[0] : ends.join("–");
}

function heatCursor(y, x) {
  for (const line of heat.lines) line.cursor.hidden = true;
  const line = heat.lines[y];
  if (!line) return;
  heat.at = [y, x];
  const width = 100 / line.cells.length;
  Object.assign(line.cursor.style, { left: `${x * width}%`, width: `max(${width}%, 6px)` });
  line.cursor.hidden = false;
  $("heat-readout").textContent = heatWords(line, x);
}

function openMap(y, x) {
  const g = Number($("heat-group").value), group = data.groups[g], name = heat.lines[y].name;
  const layer = group.layers.findIndex((each) => each.name === name);
  if (layer < 0) return void ($("heat-readout").textContent = `There is no map of ${name} in this file.`);
  $("map-group").value = g;
  chooseMapGroup();
  $("map-layer").value = layer;
  if (group.frames.length === group.heat.columns.length) $("map-slice").value = x;
  showMap();
  $("maps").scrollIntoView();
  $("map-layer").focus();
}

function heatLine(name, cells, most) {
  const canvas = el("canvas"), cursor = el("span", { className: "cursor", hidden: true });
  drawCells(canvas, cells, most);
  const text = meanText(cells);
  const holder = el("span", { className: "cells" }, canvas, cursor);
  // Set from right to left, so that the end of a long name is seen: the mark keeps its dots in order.
  const label = el("span", { title: name }, el("bdi", { textContent: name }));
  return { name, cells, cursor, canvas, node: el("div", { className: "heat-line" }, label, holder, el("span", { textContent: text, title: text })) };
}

function fillHeat() {
  const group = data.groups[$("heat-group").value], found = group.heat, region = $("heat-region").value;
  const main = new Set(found.main), every = $("heat-layers").value === "all";
  const names = Object.keys(found.rows).filter((name) => every || main.has(name));
  heat.lines = names.flatMap((name) => {
    const cells = found.rows[name][region] ?? found.rows[name].all;
    return cells ? [heatLine(name, cells, group.mostBits)] : [];
  });
  heat.at = null;
  const ends = found.ends.length ? found.ends : found.columns;
  const head = el("div", { className: `names${found.ends.length ? "" : " each"}` }, ...ends.map((text) => el("span", { textContent: text })));
  const top = el("div", { className: "heat-line heat-head" }, el("span"), head, el("span", { textContent: "mean bits" }));
  $("heat").replaceChildren(top, ...heat.lines.map((line) => line.node));
  $("heat-what").textContent = found.what;
  heat.lines.forEach((line, y) => {
    const column = (event) => {
      const box = line.canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      return Math.min(Math.max(Math.floor(share * line.cells.length), 0), line.cells.length - 1);
    };
    line.canvas.addEventListener("pointermove", (event) => heatCursor(y, column(event)));
    line.canvas.addEventListener("click", (event) => openMap(y, column(event)));
  });
}

function heatKeys(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (!heat.lines.length || (!steps[event.key] && event.key !== "Enter")) return;
  event.preventDefault();
  if (event.key === "Enter") return void (heat.at && openMap(...heat.at));
  const [y, x] = heat.at ? heat.at.map((at, i) => at + steps[event.key][i]) : [0, 0];
  const row = Math.min(Math.max(y, 0), heat.lines.length - 1);
  heatCursor(row, Math.min(Math.max(x, 0), heat.lines[row].cells.length - 1));
  heat.lines[row].node.scrollIntoView({ block: "nearest" });
}

function heatmap() {
  options($("heat-group"), data.groups.map((group, i) => [i, group.title]));
  options($("heat-region"), regionNames());
  const most = Math.max(...data.groups.map((group) => Object.keys(group.heat.rows).length));
  $("heat-layers").value = most > 60 ? "main" : "all";
  for (const id of ["heat-group", "heat-region", "heat-layers"]) $(id).addEventListener("change", fillHeat);
  $("heat").addEventListener("keydown", heatKeys);
  fillHeat();
}

// ---- the maps ----

const shown = { group: null, cut: null, layer: null, frame: null, over: null };

function place(node, [left, top, width, height]) {
  Object.assign(node.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
}

function picture(node, source, alt) {
  node.hidden = !source;
  node.alt = alt;
  source ? (node.src = PNG + source) : node.removeAttribute("src");
}

function overlayChoices(group) {
  const of = (kind) => group.overlays.filter((overlay) => overlay.kind === kind);
  const pairs = of("unstable").flatMap((one) => of("nan").map((two) => [one, two]));
  return [
    ["", "nothing"],
    ...pairs.map(([one, two]) => [`${one.key} ${two.key}`, `agreement: ${two.name}; ${one.name}`]),
    ...group.overlays.map((overlay) => [overlay.key, overlay.kind === "unstable" ? `unstable: ${overlay.name}` : overlay.name]),
  ];
}

function chooseMapGroup() {
  const group = shown.group = data.groups[$("map-group").value];
  options($("map-layer"), group.layers.map((layer, i) => [i, layer.name]));
  options($("map-overlay"), overlayChoices(group));
  $("map-overlay").selectedIndex = Math.min(1, $("map-overlay").options.length - 1);
  $("map-slice").max = group.frames.length - 1;
  $("map-slice").value = Math.floor((group.frames.length - 1) / 2);
  $("slice-control").hidden = group.frames.length < 2;
  for (const id of ["overlay-control", "opacity-control", "least-control"]) $(id).hidden = !group.overlays.length;
  for (const view of document.querySelectorAll(".view")) {
    Object.assign(view.style, { aspectRatio: String(group.aspect), maxWidth: `${36 * Math.max(group.aspect, 0.5)}rem` });
  }
  const last = group.layers.findLastIndex((layer) => layer.cuts.some((cut) => Object.keys(cut).some((key) => key !== "map")));
  $("map-layer").value = last >= 0 ? last : group.layers.length - 1;
}

function showMap() {
  const group = shown.group, layer = group.layers[$("map-layer").value], frame = Number($("map-slice").value);
  if (!layer) return;
  const { label } = group.frames[frame], cut = layer.cuts[layer.frames[frame]] ?? {};
  Object.assign(shown, { layer, cut, frame });
  $("map-where").textContent = label;
  $("map-slice").setAttribute("aria-valuetext", label);
  picture($("anatomy"), group.anatomy[frame], `${group.plane ?? "input"}, ${label}`);
  place($("anatomy"), [0, 0, 100, 100]);
  place($("map"), layer.box);
  place($("overlay"), layer.box);
  picture($("map"), cut.map, `Significant bits of ${layer.name}, ${label}`);
  const without = layer.cuts.some((each) => each.map) ? ": no map on this slice" : ": no bits, hence no map";
  $("map-caption").textContent = `${layer.name} (${layer.caption})${cut.map ? "" : without}`;
  $("anatomy-panel").hidden = !group.anatomy[frame] && !group.overlays.length;
  document.querySelectorAll(".side").forEach((side, i) => {
    side.textContent = group.sides ? group.sides[i] : "";
  });
  $("anatomy-caption").textContent = group.anatomy[frame] ? `Input: ${group.plane}, ${label}` : label;
  loadOverlay();
}

// Grey levels of a picture, once it is decoded.
async function pixels(source) {
  const image = new Image();
  image.src = PNG + source;
  await image.decode();
  const canvas = el("canvas", { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { width: image.width, height: image.height, rgba: context.getImageData(0, 0, image.width, image.height).data };
}

async function loadOverlay() {
  const keys = $("map-overlay").value.split(" ").filter(Boolean), cut = shown.cut;
  const there = keys.filter((key) => cut[key]);
  const found = await Promise.all(there.map((key) => pixels(cut[key])));
  if (cut !== shown.cut || keys.join(" ") !== $("map-overlay").value) return; // the user was faster
  shown.over = Object.fromEntries(there.map((key, i) => [key, found[i]]));
  drawOverlay();
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function drawOverlay() {
  const canvas = $("overlay"), over = shown.over ?? {}, keys = Object.keys(over);
  canvas.hidden = !keys.length;
  overlayWords(keys);
  $("map-readout").textContent = shown.cut.map ? "Point at the map to read it." : "";
  if (!keys.length) return void missingWords(keys);
  const kinds = Object.fromEntries(shown.group.overlays.map((overlay) => [overlay.key, overlay.kind]));
  const { width, height } = over[keys[0]], least = $("map-least").value / 100;
  Object.assign(canvas, { width, height });
  canvas.style.opacity = $("map-opacity").value / 100;
  const context = canvas.getContext("2d", { willReadFrequently: true }), image = context.createImageData(width, height);
  const colours = { both: rgb(data.over.both.colour), nan: rgb(data.over.nan.colour), unstable: rgb(data.over.unstable.colour) };
  const count = { both: 0, nan: 0, unstable: 0 };
  for (let i = 0; i < width * height; i++) {
    const shares = keys.map((key) => over[key].rgba[4 * i] / 255);
    const marked = shares.map((share) => share > 0 && share >= least);
    const on = keys.filter((_, k) => marked[k]).map((key) => kinds[key]);
    if (!on.length) continue;
    const what = on.length === 2 ? "both" : on[0];
    count[what] += 1;
    // One overlay alone is as dense as its share; of two, colours say which.
    image.data.set([...colours[what], keys.length === 2 ? 255 : Math.round(255 * (0.25 + 0.75 * Math.max(...shares)))], 4 * i);
  }
  context.putImageData(image, 0, 0);
  overlayCounts(keys, count, width * height);
  missingWords(keys);
}

// What was asked for and is not there is never silently left out.
function missingWords(keys) {
  const asked = $("map-overlay").value.split(" ").filter(Boolean);
  const names = shown.group.overlays.filter((each) => asked.includes(each.key) && !keys.includes(each.key)).map((each) => each.name);
  if (names.length) $("map-readout").append(` Not there for ${shown.layer.name} on ${shown.group.frames[shown.frame].label}: ${names.join("; ")}.`);
}

function overlayWords(keys) {
  const kinds = keys.map((key) => shown.group.overlays.find((overlay) => overlay.key === key).kind);
  const listed = kinds.length === 2 ? ["both", "nan", "unstable"] : kinds;
  const legend = $("overlay-legend"), single = { nan: "NaN: share of the channels", unstable: "unstable: share of the channels" };
  legend.hidden = !listed.length;
  legend.replaceChildren(...listed.map((what) => {
    const square = el("canvas", { width: 14, height: 14 }), context = square.getContext("2d");
    context.fillStyle = data.over[what].colour;
    context.fillRect(0, 0, 14, 14);
    return el("li", {}, square, el("span", { textContent: kinds.length === 2 ? data.over[what].words : single[what] }));
  }));
  const least = Number($("map-least").value);
  $("map-least-value").textContent = least ? `${least} % of the channels` : "one channel";
}

function overlayCounts(keys, count, positions) {
  const counted = $("map-least").value === "0" ? "one channel" : `${$("map-least").value} % of the channels`;
  const marked = count.both + count.nan + count.unstable, share = (n) => `${(100 * n / positions).toFixed(1)} %`;
  const twice = 2 * count.both + count.nan + count.unstable;
  $("map-readout").textContent = keys.length === 2
    ? `Of ${positions} positions, counted from ${counted}: ${share(count.both)} unstable and NaN, ${share(count.nan)} only NaN, `
      + `${share(count.unstable)} only unstable; Dice ${twice ? (2 * count.both / twice).toFixed(3) : "undefined"}.`
    : `${share(marked)} of ${positions} positions, counted from ${counted}.`;
}

const byColour = new Map(data.palette.map((colour, i) => [colour, i]));
const decoded = new WeakMap();

async function readMap(event) {
  const cut = shown.cut, box = $("map").getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (!cut?.map || x < 0 || x >= 1 || y < 0 || y >= 1) return;
  if (!decoded.has(cut)) decoded.set(cut, pixels(cut.map));
  const { width, height, rgba } = await decoded.get(cut);
  const at = 4 * (Math.floor(y * height) * width + Math.floor(x * width));
  const colour = "#" + [...rgba.slice(at, at + 3)].map((part) => part.toString(16).padStart(2, "0")).join("");
  const index = byColour.get(colour);
  if (index === undefined) return;
  const bits = (index / (data.levels - 1)) * shown.group.mostBits;
  const words = index < data.levels ? `${bits.toFixed(1)} bits` : data.classes[index - data.levels + 1].words;
  $("map-readout").textContent = `${shown.layer.name}, column ${Math.floor(x * width)}, row ${Math.floor(y * height)} of `
    + `${width} × ${height}: ${words}.`;
}

function maps() {
  const first = data.groups.findIndex((group) => group.layers.length);
  if (first < 0) return;
  $("viewer").hidden = false;
  options($("map-group"), data.groups.flatMap((group, i) => (group.layers.length ? [[i, group.title]] : [])));
  $("map-group").value = first;
  chooseMapGroup();
  $("map-group").addEventListener("change", () => { chooseMapGroup(); showMap(); });
  for (const id of ["map-layer", "map-overlay"]) $(id).addEventListener("change", showMap);
  $("map-slice").addEventListener("input", showMap);
  for (const id of ["map-opacity", "map-least"]) $(id).addEventListener("input", drawOverlay);
  $("map").addEventListener("pointermove", readMap);
  showMap();
}

// ---- copying the methods ----

async function copy() {
  const text = $("boilerplate").innerText;
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("boilerplate"));
    $("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
}

for (const choice of document.querySelectorAll(".group-choice")) choice.hidden = data.groups.length < 2;
for (const table of document.querySelectorAll("table.sortable, #layer-table")) sortable(table);
layerTable();
heatmap();
maps();
theme();
sections();
$("copy").addEventListener("click", copy);
