// Curves, by uPlot: values with a band of one standard error, depths that matter, and the relative error below.
"use strict";

Pictures.drawCurve = async function (drawing, parts) {
  const axis = drawing.axes[0];
  const ask = (query) => Pictures.fetchNumbers(drawing.slices, query);
  const [centres, values, errors] = await Promise.all([
    ask({ what: "axis", axis: 1 }),
    ask({ what: "values" }),
    drawing.hasErrors ? ask({ what: "errors" }) : null,
  ]);
  let index = drawing.largestAt;
  if (centres[0] > centres[centres.length - 1]) { // uPlot needs ascending numbers
    for (const numbers of [centres, values, errors]) numbers?.reverse();
    index = centres.length - 1 - index;
  }
  const ends = Pictures.edges(centres);
  const range = [ends[0], ends[ends.length - 1]];
  let plots = [];

  const slider = Pictures.addSlider(parts.sliders, `Cursor along ${axis.name || "the axis"}`, centres.length, index, showAt);

  function readOut(at) {
    index = at;
    slider.value = at;
    const value = Pictures.formatValue(values[at], errors ? errors[at] : NaN, drawing.unit);
    const text = `${axis.name} ${Pictures.format(centres[at], 6)} ${axis.unit}: ${value}`;
    parts.readout.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }

  function showAt(at) {
    readOut(at);
    for (const plot of plots) {
      plot.setCursor({ left: plot.valToPos(centres[at], "x"), top: plot.over.clientHeight / 2 }, false);
    }
  }

  // uPlot draws a gap where a value is null.
  const shown = (numbers, isLog) => Array.from(numbers, (n) => (Number.isFinite(n) && !(isLog && n <= 0) ? n : null));

  function limits(isLog) {
    if (!isLog) {
      let low = Math.min(0, drawing.minimum), high = Math.max(0, drawing.maximum);
      if (low === high) high = low + 1;
      const room = 0.06 * (high - low);
      return [low < 0 ? low - room : 0, high > 0 ? high + room : 0];
    }
    const low = Math.max(drawing.leastPositive, drawing.maximum * 1e-6);
    return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(drawing.maximum * 1.05))];
  }

  const isPower = (number) => Math.abs(Math.log10(number) - Math.round(Math.log10(number))) < 1e-9;
  function axes(colours, yLabel, xLabel, isLog) {
    const powers = (_, splits) => (isLog ? splits.map((at) => (isPower(at) ? at : null)) : splits);
    const common = { stroke: colours.text, grid: { stroke: colours.line, width: 1 }, ticks: { stroke: colours.line, width: 1 } };
    const font = `13px ${colours.font}`;
    return [
      { ...common, font, labelFont: font, label: xLabel, labelSize: xLabel ? 26 : 0, size: xLabel ? 34 : 10,
        values: xLabel ? (_, ticks) => ticks.map((tick) => Pictures.format(tick, 6)) : () => [] },
      { ...common, font, labelFont: font, label: yLabel, labelSize: 24, size: 82, filter: powers,
        grid: { ...common.grid, filter: powers }, ticks: { ...common.ticks, filter: powers },
        values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : isLog ? Pictures.formatPower(tick) : Pictures.format(tick, 3))) },
    ];
  }

  // The band is at least 6 pixels high, so that small errors can be seen too.
  function drawBand(plot, colours) {
    const { ctx, bbox } = plot, least = 3 * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillStyle = colours.accent;
    ctx.globalAlpha = 0.35;
    const y = (number) => plot.valToPos(number, "y", true);
    const floor = plot.scales.y.min;
    for (let i = 0; i < values.length; ) {
      const upper = [], lower = [];
      for (; i < values.length && plot.data[1][i] !== null && Number.isFinite(errors[i]); i++) {
        const x = plot.valToPos(centres[i], "x", true), middle = y(values[i]);
        upper.push([x, Math.min(y(values[i] + errors[i]), middle - least)]);
        lower.push([x, Math.max(y(Math.max(values[i] - errors[i], floor)), middle + least)]);
      }
      if (upper.length) {
        ctx.beginPath();
        for (const [x, at] of [...upper, ...lower.reverse()]) ctx.lineTo(x, at);
        ctx.fill();
      }
      if (i < values.length && !upper.length) i++;
    }
    ctx.restore();
  }

  function drawMarks(plot, colours) {
    const { ctx, bbox } = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colours.mark;
    ctx.lineWidth = 1.5 * ratio;
    ctx.font = `${12 * ratio}px ${colours.font}`;
    ctx.textAlign = "right";
    drawing.marks.forEach(({ at, text }, row) => {
      const x = plot.valToPos(at, "x", true), line = bbox.top + (15 + 16 * row) * ratio;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
      const isLeft = x - ctx.measureText(text).width - 8 * ratio > bbox.left;
      ctx.textAlign = isLeft ? "right" : "left";
      const edge = isLeft ? Math.min(...drawing.marks.map((mark) => plot.valToPos(mark.at, "x", true))) - 6 * ratio : x + 6 * ratio;
      const width = ctx.measureText(text).width, height = 15 * ratio;
      ctx.fillStyle = colours.surface;
      ctx.globalAlpha = 0.8;
      ctx.fillRect(isLeft ? edge - width : edge, line - 0.8 * height, width, height);
      ctx.globalAlpha = 1;
      ctx.fillStyle = colours.mark;
      ctx.fillText(text, edge, line);
    });
    ctx.restore();
  }

  function options(height, scales, series, axesShown, hooks) {
    return {
      width: Math.max(parts.canvas.clientWidth, 240), height, scales, series, axes: axesShown, hooks,
      legend: { show: false }, padding: [12, 16, 0, 0], focus: { alpha: 1 },
      cursor: { y: false, drag: { x: true, y: false }, sync: { key: drawing.slices }, points: { size: 8 } },
    };
  }

  function draw() {
    for (const plot of plots) plot.destroy();
    plots = [];
    const isLog = parts.log.checked, colours = Pictures.colours(parts.section), xs = Array.from(centres);
    const [low, high] = limits(isLog);
    const xLabel = Pictures.label(axis.name, axis.unit);
    const line = { stroke: colours.accent, width: 1.5, pxAlign: 0, points: { show: centres.length < 40 } };
    const hooks = {
      drawAxes: errors ? [(plot) => drawBand(plot, colours)] : [],
      draw: [(plot) => drawMarks(plot, colours)],
    };
    const height = Math.round(Math.min(Math.max(parts.canvas.clientWidth * 0.5, 260), window.innerHeight * 0.6, 620));
    const scales = { x: { time: false, range: (_, from, to) => (from === xs[0] && to === xs[xs.length - 1] ? range : [from, to]) },
      y: { range: [low, high], distr: isLog ? 3 : 1 } };
    const main = new uPlot(
      options(height, scales, [{}, line], axes(colours, Pictures.label(drawing.name, drawing.unit), errors ? "" : xLabel, isLog), hooks),
      [xs, shown(values, isLog)], parts.canvas);
    plots = [main];
    if (errors) {
      const percent = Array.from(values, (v, i) => {
        const part = Math.abs(100 * errors[i] / v);
        return Number.isFinite(part) && Math.abs(v) > 0.01 * Math.abs(drawing.maximum) ? part : null;
      });
      const largest = Math.max(...percent.filter((part) => part !== null), 1e-9);
      plots.push(new uPlot(
        options(150, { x: scales.x, y: { range: [0, largest * 1.1] } }, [{}, line], axes(colours, "error [%]", xLabel), {}),
        [xs, percent], parts.canvas));
    }
    for (const plot of plots) {
      plot.over.addEventListener("mousemove", () => {
        if (plot.cursor.idx !== null && plot.cursor.idx !== undefined) readOut(plot.cursor.idx);
      });
    }
    readOut(index);
    requestAnimationFrame(() => showAt(index)); // uPlot has its scales in the next frame
  }

  if (!(drawing.leastPositive > 0)) parts.log.disabled = true;
  parts.log.addEventListener("change", draw);
  parts.png.addEventListener("click", () => Pictures.save(joined(), drawing.file));

  // Both plots on the colour of the page, with the name of the estimator.
  function joined() {
    const canvases = plots.map((plot) => plot.ctx.canvas), colours = Pictures.colours(parts.section);
    const title = 36 * devicePixelRatio, picture = document.createElement("canvas");
    picture.width = Math.max(...canvases.map((canvas) => canvas.width));
    picture.height = title + canvases.reduce((sum, canvas) => sum + canvas.height, 0);
    const ctx = picture.getContext("2d");
    ctx.fillStyle = colours.surface;
    ctx.fillRect(0, 0, picture.width, picture.height);
    ctx.fillStyle = colours.text;
    ctx.font = `600 ${16 * devicePixelRatio}px ${colours.font}`;
    ctx.fillText(parts.section.querySelector("h2").innerText.replace(/\s+/g, " "), 12 * devicePixelRatio, 24 * devicePixelRatio);
    let top = title;
    for (const canvas of canvases) {
      ctx.drawImage(canvas, 0, top);
      top += canvas.height;
    }
    return picture;
  }

  draw();
  return draw;
};
