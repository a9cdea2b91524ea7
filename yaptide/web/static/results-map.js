// Maps of two axes, and three planes through a grid of three axes over the CT. Slices come as doubles, maps in the precision of a picture.
"use strict";

// Viridis, which colour-blind people can read too, and which gets lighter with the value; between these by steps.
const VIRIDIS = "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725";
const COLOURS = (() => {
  const anchors = VIRIDIS.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (anchors.length - 1), low = Math.min(Math.floor(at), anchors.length - 2);
    for (let c = 0; c < 3; c++) table[3 * i + c] = anchors[low][c] + (at - low) * (anchors[low + 1][c] - anchors[low][c]);
  }
  return table;
})();
const MISSING = 256, HIDDEN = 257;
const PERCENT = 20; // the scale of errors
const IN_MM = { mm: 1, cm: 10, m: 1000, um: 1e-3, "µm": 1e-3 };
const MARGIN = { left: 62, right: 12, top: 26, bottom: 44 };

Pictures.drawMap = async function (drawing, parts) {
  const axes = await loadAxes(drawing);
  const isGrid = axes.length === 3;
  const place = axes.map((axis) => axis.centres.length >> 1); // the cursor, which the planes go through
  for (let rest = drawing.largestAt, i = 0; i < axes.length; i++) {
    place[i] = rest % axes[i].centres.length;
    rest = Math.floor(rest / axes[i].centres.length);
  }
  const ct = isGrid ? await loadCT(drawing, axes) : null;
  const planes = (isGrid ? planesOfGrid(axes) : [planeOfMap(axes)]).map((plane) => addCanvas(parts, plane, isGrid));
  const bar = parts.canvas.appendChild(document.createElement("canvas"));
  bar.className = "scale";
  bar.setAttribute("aria-hidden", "true");
  parts.canvas.classList.add(isGrid ? "planes" : "map");
  if (ct) prepareWindow();

  const sliders = axes.map((axis, i) => {
    const slider = Pictures.addSlider(parts.sliders, `${axis.name || `Axis ${i + 1}`}`, axis.centres.length, place[i], (at) => move(i, at));
    slider.dataset.axis = i + 1;
    return slider;
  });

  function move(axis, at) {
    place[axis] = at;
    load();
    redraw();
  }

  // Slices of the places where the sliders are now. While one is on its way no other one is asked for in its plane.
  function load() {
    return Promise.all(planes.map(async (plane) => {
      if (plane.isLoading) return;
      plane.isLoading = true;
      try {
        for (let at = NaN; plane.fixed !== null && at !== place[plane.fixed]; ) {
          at = place[plane.fixed];
          await loadSlice(plane, at);
          redraw();
        }
        if (plane.fixed === null && !plane.values) await loadSlice(plane, 0);
      } finally {
        plane.isLoading = false;
      }
    }));
  }
  async function loadSlice(plane, at) {
    const query = plane.fixed === null ? {} : { axis: plane.fixed + 1, index: at };
    const needsErrors = drawing.hasErrors && ((isGrid && plane === planes[0]) || parts.what?.value === "errors");
    const [values, errors, image] = await Promise.all([
      isGrid ? Pictures.fetchNumbers(drawing.slices, { what: "values", ...query }) : loadShades(drawing),
      needsErrors ? Pictures.fetchNumbers(drawing.slices, { what: "errors", ...query }) : null,
      ct ? ct.load(plane.fixed, axes[plane.fixed].centres[at]) : null,
    ]);
    Object.assign(plane, { values, errors, image, at });
  }

  function scale() {
    const isLog = parts.log.checked;
    if (parts.what?.value === "errors") return { low: 0, high: PERCENT, isLog: false, label: "standard error [%]" };
    const high = drawing.maximum;
    const low = isLog ? Math.max(drawing.leastPositive, high * 1e-6) : Math.min(0, drawing.minimum);
    return { low, high: high > low ? high : low + 1, isLog, label: Pictures.label(drawing.name, drawing.unit) };
  }

  // What colour each bin of a slice has: a number of the table, or MISSING, or HIDDEN.
  function indices(plane, { low, high, isLog }) {
    const { values, errors } = plane, found = new Uint16Array(values.length);
    const isPercent = parts.what?.value === "errors";
    const threshold = parts.threshold ? (Number(parts.threshold.value) / 100) * drawing.maximum : -Infinity;
    const span = isLog ? Math.log(high / low) : high - low;
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (Number.isNaN(value)) { found[i] = MISSING; continue; }
      if (value < threshold && threshold > 0) { found[i] = HIDDEN; continue; }
      const shown = isPercent ? Math.abs((100 * errors?.[i]) / value) : value;
      if (Number.isNaN(shown)) { found[i] = MISSING; continue; }
      const part = isLog ? Math.log(shown / low) / span : (shown - low) / span;
      found[i] = isLog && shown <= 0 ? (ct ? HIDDEN : 0) : Math.max(0, Math.min(255, Math.round(255 * part)));
    }
    return found;
  }

  function draw() {
    for (const control of [parts.opacity, parts.threshold]) if (control) control.nextElementSibling.textContent = `${control.value} %`;
    const colours = Pictures.colours(parts.section), limits = scale();
    for (const plane of planes) if (plane.values) drawPlane(plane, limits, colours);
    drawBar(bar, limits, colours, isGrid || isNarrow() ? 220 : planes[0].canvas.clientHeight);
    readOut(place);
  }

  function drawPlane(plane, limits, colours) {
    const { canvas } = plane, ratio = devicePixelRatio;
    const size = sizeOf(plane);
    canvas.width = Math.round((size.width + MARGIN.left + MARGIN.right) * ratio);
    canvas.height = Math.round((size.height + MARGIN.top + MARGIN.bottom) * ratio);
    canvas.style.width = `${canvas.width / ratio}px`;
    canvas.style.height = `${canvas.height / ratio}px`;
    plane.box = { left: MARGIN.left, top: MARGIN.top, ...size };
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = colours.surface;
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    paintBins(ctx, plane, indices(plane, limits), colours, ratio);
    ctx.scale(ratio, ratio);
    drawAxes(ctx, plane, colours);
    drawCross(ctx, plane, place, colours);
    const title = plane.title(place.map((bin, axis) => (axis === plane.fixed ? plane.at : bin))); // of what is drawn
    canvas.setAttribute("aria-label", `${title || "Map"}; the values are read with the sliders`);
    ctx.fillStyle = colours.text;
    ctx.font = `600 13px ${colours.font}`;
    ctx.textAlign = "left";
    ctx.fillText(title, MARGIN.left, 17);
  }

  function sizeOf(plane) {
    const { h, v } = plane;
    const room = isGrid ? columnWidth() : parts.canvas.clientWidth - (isNarrow() ? 0 : 110);
    const most = isGrid ? Math.max(420, window.innerHeight * 0.4) : Math.min(window.innerHeight * 0.65, 700);
    const width = room - MARGIN.left - MARGIN.right;
    const aspect = IN_MM[h.unit] && IN_MM[v.unit] ? (length(v) * IN_MM[v.unit]) / (length(h) * IN_MM[h.unit]) : 0.7;
    if (aspect > 12 || aspect < 1 / 12) return { width, height: Math.min(most, width * 0.5) };
    const part = Math.min(1, most / (width * aspect));
    return { width: Math.round(width * part), height: Math.round(width * part * aspect) };
  }
  const isNarrow = () => window.matchMedia("(max-width: 44rem)").matches; // the scale of colours is below the map
  function columnWidth() {
    const all = parts.canvas.clientWidth;
    if (all > 1000) return Math.floor((all - 96 - 3 * 16) / 3);
    return all > 640 ? Math.floor((all - 16) / 2) : all;
  }

  // Each pixel gets the colour of its bin over the grey of the CT.
  function paintBins(ctx, plane, bins, colours, ratio) {
    const { box, h, v } = plane, width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
    const picture = ctx.createImageData(width, height), data = picture.data;
    const [nh, nv] = [h.centres.length, v.centres.length];
    const [stepH, stepV] = h.number < v.number ? [1, nh] : [nv, 1];
    const columns = binsOfPixels(h, width, false), rows = binsOfPixels(v, height, true);
    const below = ct && plane.image ? ct.pixels(plane, columns.places, rows.places) : null;
    const ground = rgb(ctx, colours.surface), gap = rgb(ctx, colours.line);
    const alpha = parts.opacity ? Number(parts.opacity.value) / 100 : 1;
    for (let y = 0, at = 0; y < height; y++) {
      const row = rows.bins[y] * stepV;
      for (let x = 0; x < width; x++, at += 4) {
        const index = bins[row + columns.bins[x] * stepH];
        const grey = below ? below(x, y) : -1;
        const base = grey >= 0 ? [grey, grey, grey] : ground;
        if (index === MISSING) {
          const colour = (x + y) % Math.round(8 * ratio) < 2 * ratio ? gap : base;
          data[at] = colour[0]; data[at + 1] = colour[1]; data[at + 2] = colour[2];
        } else {
          const part = index === HIDDEN ? 0 : alpha, from = index === HIDDEN ? 0 : 3 * index;
          for (let c = 0; c < 3; c++) data[at + c] = base[c] + part * (COLOURS[from + c] - base[c]);
        }
        data[at + 3] = 255;
      }
    }
    ctx.putImageData(picture, Math.round(box.left * ratio), Math.round(box.top * ratio));
  }

  // A value and its error, exactly; null while they are on their way. Of a map only the rows are fetched that are read out.
  const rows = new Map();
  function numbersAt(where, plane, at) {
    if (isGrid) return { value: plane.values[at], error: plane.errors?.[at] ?? NaN };
    if (!rows.has(where[1])) {
      rows.set(where[1], null);
      const ask = (what) => Pictures.fetchNumbers(drawing.slices, { what, axis: 2, index: where[1] });
      Promise.all([ask("values"), drawing.hasErrors ? ask("errors") : null]).then(
        (row) => { rows.set(where[1], row); readOut(shown); },
        () => rows.delete(where[1]));
    }
    const row = rows.get(where[1]);
    return row && { value: row[0][where[0]], error: row[1]?.[where[0]] ?? NaN };
  }

  let shown = place;
  function readOut(where, plane = planes[0]) {
    shown = where;
    const { h, v } = plane;
    const [nh, nv] = [h.centres.length, v.centres.length];
    const at = h.number < v.number ? where[h.number] + nh * where[v.number] : where[v.number] + nv * where[h.number];
    const isCurrent = plane.values && (plane.fixed === null || plane.at === where[plane.fixed]);
    const places = axes.map((axis, i) => `${axis.name} ${Pictures.format(axis.centres[where[i]], 6)} ${axis.unit}`);
    const numbers = isCurrent ? numbersAt(where, plane, at) : null;
    const value = numbers ? Pictures.formatValue(numbers.value, numbers.error, drawing.unit) : "…";
    const below = ct && isCurrent ? ct.text(axes, where, plane) : "";
    parts.readout.textContent = `${places.join(", ")}: ${value}${below}`;
    sliders.forEach((slider, i) => {
      if (Number(slider.value) !== place[i]) slider.value = place[i];
      slider.setAttribute("aria-valuetext", `${places[i]}: ${value}`);
    });
  }

  // Pressing moves the cursor, and with it the other planes; hovering reads out.
  function pointAt(plane, event) {
    if (!plane.box || !plane.values) return null;
    const bounds = plane.canvas.getBoundingClientRect(), { box, h, v } = plane;
    const x = (event.clientX - bounds.left - box.left) / box.width, y = (event.clientY - bounds.top - box.top) / box.height;
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
    const where = [...place];
    where[h.number] = binAt(h, x);
    where[v.number] = binAt(v, 1 - y);
    return where;
  }
  for (const plane of planes) {
    const follow = (event) => {
      const where = pointAt(plane, event);
      if (!where) return;
      if (event.buttons & 1) {
        where.forEach((at, i) => { place[i] = at; });
        load();
        redraw();
      } else {
        readOut(where, plane);
      }
    };
    plane.canvas.addEventListener("pointermove", follow);
    plane.canvas.addEventListener("pointerdown", follow);
    plane.canvas.addEventListener("pointerleave", () => readOut(place));
  }

  function prepareWindow() {
    parts.window.hidden = false;
    parts.opacity.value = 60;
    parts.threshold.value = 5;
    // Of a patient from air to bone; in a phantom its thinnest part is dark grey, not black.
    const isPatient = ct.quantity === "HU" && ct.minimum < -300;
    const low = isPatient ? Math.max(ct.minimum, -1000) : ct.minimum - 0.3 * (ct.maximum - ct.minimum);
    const high = isPatient ? Math.min(ct.maximum, 1500) : ct.maximum;
    parts.level.value = Math.round((low + high) / 2);
    parts.width.value = Math.max(1, Math.round(high - low) || 1);
    ct.window = () => [Number(parts.level.value) || 0, Math.max(Number(parts.width.value) || 1, 1e-6)];
  }

  const redraw = Pictures.oncePerFrame(draw);
  if (!(drawing.leastPositive > 0)) parts.log.disabled = true;
  for (const control of [parts.log, parts.opacity, parts.threshold, parts.level, parts.width]) control?.addEventListener("input", redraw);
  parts.what?.addEventListener("change", async () => {
    parts.log.disabled = parts.what.value === "errors" || !(drawing.leastPositive > 0);
    await Promise.all(planes.map((plane) => loadSlice(plane, plane.fixed === null ? 0 : place[plane.fixed])));
    redraw();
  });
  parts.png.addEventListener("click", () => Pictures.save(joined(), drawing.file));

  function joined() {
    const canvases = [...planes.map((plane) => plane.canvas), bar], title = 36 * devicePixelRatio;
    const picture = document.createElement("canvas"), colours = Pictures.colours(parts.section);
    picture.width = canvases.reduce((sum, canvas) => sum + canvas.width, 0);
    picture.height = title + Math.max(...canvases.map((canvas) => canvas.height));
    const ctx = picture.getContext("2d");
    ctx.fillStyle = colours.surface;
    ctx.fillRect(0, 0, picture.width, picture.height);
    ctx.fillStyle = colours.text;
    ctx.font = `600 ${16 * devicePixelRatio}px ${colours.font}`;
    ctx.fillText(parts.section.querySelector("h2").innerText.replace(/\s+/g, " "), 12 * devicePixelRatio, 24 * devicePixelRatio);
    let left = 0;
    for (const canvas of canvases) {
      ctx.drawImage(canvas, left, title);
      left += canvas.width;
    }
    return picture;
  }

  await load();
  draw();
  return draw;
};

async function loadAxes(drawing) {
  return Promise.all(drawing.axes.map(async (axis, number) => {
    const centres = await Pictures.fetchNumbers(drawing.slices, { what: "axis", axis: number + 1 });
    return { ...axis, number, centres, edges: Pictures.edges(centres) };
  }));
}

// The values of a map in the precision of a picture: the upper halves of 32-bit floats, as parts of the largest value.
async function loadShades(drawing) {
  const bytes = await Pictures.fetchNumbers(drawing.slices, { what: "shades" }, Uint8Array), count = bytes.length / 2;
  const halves = new Uint32Array(count);
  for (let i = 0; i < count; i++) halves[i] = ((bytes[i] << 8) | bytes[count + i]) << 16;
  return Float64Array.from(new Float32Array(halves.buffer), (part) => part * drawing.largest);
}

const length = (axis) => Math.abs(axis.edges[axis.edges.length - 1] - axis.edges[0]);
const isAlongBeam = (axis) => /depth|\bz\b/i.test(axis.name);

function planeOfMap(axes) {
  const [h, v] = isAlongBeam(axes[1]) && !isAlongBeam(axes[0]) ? [axes[1], axes[0]] : axes;
  return { h, v, fixed: null, title: () => "" };
}

// The second axis of a plane goes up: beams of MCsquare at gantry 0, which enter at high y, come from above.
function planesOfGrid([x, y, z]) {
  const at = (axis) => (place) => `${axis.name} = ${Pictures.format(axis.centres[place[axis.number]], 5)} ${axis.unit}`;
  const named = (name, axis) => (place) => `${name}, ${at(axis)(place)}`;
  const isSpace = [x, y, z].every((axis) => IN_MM[axis.unit]);
  const [axial, coronal, sagittal] = isSpace ? ["Axial", "Coronal", "Sagittal"] : ["Plane", "Plane", "Plane"];
  return [
    { h: x, v: y, fixed: 2, title: named(axial, z) },
    { h: x, v: z, fixed: 1, title: named(coronal, y) },
    { h: y, v: z, fixed: 0, title: named(sagittal, x) },
  ];
}

function addCanvas(parts, plane) {
  const canvas = parts.canvas.appendChild(document.createElement("canvas"));
  canvas.setAttribute("role", "img");
  return { ...plane, canvas };
}

// The bin at a part (0 to 1) of the length of an axis.
function binAt(axis, part) {
  const { edges } = axis, n = edges.length - 1, at = edges[0] + part * (edges[n] - edges[0]), up = edges[n] > edges[0];
  let low = 0, high = n - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (up ? at < edges[middle + 1] : at > edges[middle + 1]) high = middle;
    else low = middle + 1;
  }
  return low;
}

function binsOfPixels(axis, count, isReversed) {
  const bins = new Int32Array(count), places = new Float64Array(count), last = axis.edges.length - 1;
  for (let i = 0; i < count; i++) {
    const part = (isReversed ? count - 0.5 - i : i + 0.5) / count;
    bins[i] = binAt(axis, part);
    places[i] = axis.edges[0] + part * (axis.edges[last] - axis.edges[0]);
  }
  return { bins, places };
}

function drawAxes(ctx, { box, h, v }, colours) {
  ctx.strokeStyle = colours.muted;
  ctx.fillStyle = colours.text;
  ctx.lineWidth = 1;
  ctx.font = `12px ${colours.font}`;
  ctx.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
  const ends = (axis) => [axis.edges[0], axis.edges[axis.edges.length - 1]];
  const [h0, h1] = ends(h), [v0, v1] = ends(v), bottom = box.top + box.height;
  ctx.textAlign = "center";
  for (const tick of Pictures.ticks(Math.min(h0, h1), Math.max(h0, h1), box.width / 60)) {
    const x = box.left + ((tick - h0) / (h1 - h0)) * box.width;
    ctx.fillRect(x - 0.5, bottom, 1, 5);
    ctx.fillText(Pictures.format(tick, 6), x, bottom + 17);
  }
  ctx.fillText(Pictures.label(h.name, h.unit), box.left + box.width / 2, bottom + 36);
  ctx.textAlign = "right";
  for (const tick of Pictures.ticks(Math.min(v0, v1), Math.max(v0, v1), box.height / 36)) {
    const part = (tick - v0) / (v1 - v0), y = box.top + (1 - part) * box.height;
    ctx.fillRect(box.left - 5, y - 0.5, 5, 1);
    ctx.fillText(Pictures.format(tick, 6), box.left - 8, y + 4);
  }
  ctx.save();
  ctx.translate(14, box.top + box.height / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.fillText(Pictures.label(v.name, v.unit), 0, 0);
  ctx.restore();
}

function drawCross(ctx, { box, h, v }, place, colours) {
  const part = (axis) => (axis.centres[place[axis.number]] - axis.edges[0]) / (axis.edges[axis.edges.length - 1] - axis.edges[0]);
  const x = box.left + part(h) * box.width, y = box.top + (1 - part(v)) * box.height;
  for (const [colour, width] of [["#000", 3], ["#fff", 1]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.globalAlpha = width === 3 ? 0.35 : 0.9;
    ctx.beginPath();
    for (const [x0, y0, x1, y1] of [[box.left, y, x - 8, y], [x + 8, y, box.left + box.width, y], [x, box.top, x, y - 8], [x, y + 8, x, box.top + box.height]]) {
      ctx.moveTo(x0, y0);
      ctx.lineTo(x1, y1);
    }
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

function drawBar(canvas, { low, high, isLog, label }, colours, height) {
  const ratio = devicePixelRatio, width = 96, top = MARGIN.top, inner = Math.max(height - MARGIN.top - MARGIN.bottom, 80);
  canvas.width = width * ratio;
  canvas.height = (inner + MARGIN.top + MARGIN.bottom) * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${canvas.height / ratio}px`;
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.fillStyle = colours.surface;
  ctx.fillRect(0, 0, width, canvas.height);
  for (let i = 0; i < inner; i++) {
    const index = Math.round(255 * (1 - i / (inner - 1)));
    ctx.fillStyle = `rgb(${COLOURS[3 * index]} ${COLOURS[3 * index + 1]} ${COLOURS[3 * index + 2]})`;
    ctx.fillRect(0, top + i, 18, 1);
  }
  ctx.fillStyle = colours.text;
  ctx.font = `12px ${colours.font}`;
  ctx.textAlign = "left";
  const ticks = isLog ? Pictures.powers(low, high, inner / 24) : Pictures.ticks(low, high, inner / 36);
  for (const tick of ticks) {
    const part = isLog ? Math.log(tick / low) / Math.log(high / low) : (tick - low) / (high - low);
    const y = top + (1 - part) * inner;
    ctx.fillRect(18, y - 0.5, 4, 1);
    ctx.fillText(isLog ? Pictures.formatPower(tick) : Pictures.format(tick, 3), 25, y + 4);
  }
  ctx.fillText(label.length > 15 ? label.replace(/^.*\[/, "[") : label, 0, 16, width);
}

function rgb(ctx, colour) {
  ctx.save();
  ctx.fillStyle = colour;
  const hex = ctx.fillStyle; // browsers write it as #rrggbb
  ctx.restore();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// The CT on a grid of its own, in mm; null if there is none, or the axes are not those of space.
async function loadCT(drawing, axes) {
  if (!axes.every((axis, i) => IN_MM[axis.unit] && new RegExp(`(^|[^a-z])${"xyz"[i]}([^a-z]|$)`, "i").test(axis.name))) return null;
  const response = await Pictures.fetch(drawing.ct);
  if (response.status !== 200 || response.redirected) return null;
  const ct = await response.json();
  const index = (axis, at) => {
    const found = Math.round((at * IN_MM[axes[axis].unit] - ct.origin[axis]) / ct.spacing[axis]);
    return found >= 0 && found < ct.shape[axis] ? found : -1;
  };
  ct.load = async (axis, at) => {
    const found = index(axis, at);
    if (found < 0) return null;
    return Pictures.fetchNumbers(`${drawing.ct}?v=${ct.digest}`, { axis: axis + 1, index: found }, Float32Array);
  };
  const steps = (h, v) => (h < v ? [1, ct.shape[h]] : [ct.shape[v], 1]);
  ct.pixels = (plane, columns, rows) => {
    const [h, v] = [plane.h.number, plane.v.number], [stepH, stepV] = steps(h, v);
    const xs = Array.from(columns, (at) => index(h, at)), ys = Array.from(rows, (at) => index(v, at));
    const [level, width] = ct.window(), low = level - width / 2;
    return (x, y) => {
      if (xs[x] < 0 || ys[y] < 0) return -1;
      const part = (plane.image[xs[x] * stepH + ys[y] * stepV] - low) / width;
      return Math.max(0, Math.min(255, Math.round(255 * part)));
    };
  };
  ct.text = (all, where, plane) => {
    const [h, v] = [plane.h.number, plane.v.number], [stepH, stepV] = steps(h, v);
    const i = index(h, all[h].centres[where[h]]), j = index(v, all[v].centres[where[v]]);
    if (!plane.image || i < 0 || j < 0) return "";
    const value = plane.image[i * stepH + j * stepV];
    return ct.quantity === "HU" ? `; CT ${Pictures.format(value, 4)} HU` : `; zone ${Pictures.format(value, 4)}`;
  };
  return ct;
}
