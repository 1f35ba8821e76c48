"use strict";
// Charts over the ops in the order they run, and over the evaluations of the search.

const FLOOR = 1e-8; // errors below are drawn here: a logarithm has no zero

function axes(x, y) {
  const style = {
    stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 },
    font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18,
  };
  return [{ ...style, label: x.label, values: x.values, size: 34 }, { ...style, size: 62, ...y }];
}

/** Whole powers of ten, as many as have room. */
function decades(u, axis, min, max) {
  const [first, last] = [Math.ceil(Math.log10(min) - 1e-9), Math.floor(Math.log10(max) + 1e-9)];
  const step = Math.max(1, Math.ceil((last - first + 1) / 8));
  const found = [];
  for (let power = first; power <= last; power += step) found.push(10 ** power);
  return found;
}

const logarithmic = (label) => ({ label, splits: decades, filter: (u, splits) => splits, values: (u, ticks) => ticks.map(exponent) });

const exponent = (x) => (x === null ? "" : x >= 0.01 && x < 1e4 ? String(Number(x.toPrecision(2))) : x.toExponential(0).replace("e+", "e"));

/** A chart that follows its place's width, answers to the keyboard and tells where the cursor is. */
function chart(label, options, data, told, chosen) {
  const place = el("div", { class: "plot", tabindex: "0", role: "img", "aria-label": label });
  const readout = el("p", { class: "readout", "aria-live": "polite" }, t("hover"));
  const root = el("div", { class: "chart" }, place, readout);
  const tell = (u) => { readout.textContent = u.cursor.idx === null || u.cursor.idx === undefined ? t("hover") : told(u.cursor.idx); };
  const plot = new uPlot({
    width: 600, height: 300, legend: { show: false }, ...options,
    hooks: { ...options.hooks, setCursor: [tell] },
  }, data, place);
  plot.over.addEventListener("click", () => {
    if (chosen && plot.cursor.idx !== null && plot.select.width === 0) chosen(plot.cursor.idx);
  });
  place.addEventListener("keydown", (event) => {
    const last = data[0].length - 1;
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const zoom = { "+": 0.5, "=": 0.5, "-": 2, "−": 2 }[event.key];
    if (zoom && last > 0) {
      const { min, max } = plot.scales.x, middle = data[0][plot.cursor.idx ?? Math.round((min + max) / 2)] ?? (min + max) / 2;
      const half = Math.max(1, (max - min) * zoom / 2);
      plot.setScale("x", { min: Math.max(data[0][0], middle - half), max: Math.min(data[0][last], middle + half) });
      return;
    }
    if (event.key === "Enter" && chosen && plot.cursor.idx !== null) chosen(plot.cursor.idx);
    if (step === undefined) return;
    event.preventDefault();
    const at = Math.min(last, Math.max(0, (plot.cursor.idx ?? (step > 0 ? -1 : last + 1)) + step));
    const { min, max } = plot.scales.x, x = data[0][at];
    if (x < min) plot.setScale("x", { min: x, max: x + max - min });
    else if (x > max) plot.setScale("x", { min: x - max + min, max: x });
    // A new scale holds from the next microtask on.
    queueMicrotask(() => plot.setCursor({ left: plot.valToPos(x, "x"), top: plot.over.clientHeight / 2 }));
  });
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: 300 });
  }).observe(place);
  return root;
}

/** The ops that a chart has something to show of, in the order they run; constants have not. */
function plotted(ops) {
  const rows = ops.id.map((_, i) => i).filter((i) => ops.most[i] !== null || ops.low_error[i] !== null);
  const columns = Object.fromEntries(Object.entries(ops).filter(([, c]) => c.length === ops.id.length).map(([name, c]) => [name, rows.map((i) => c[i])]));
  return { ...columns, rows };
}

const opAxis = (ops) => ({
  label: t("op_axis"),
  values: (u, ticks) => ticks.map((x) => (Number.isInteger(x) && ops.id[x] !== undefined ? String(ops.id[x]) : "")),
});

/** Marks the ops that stay in fp32: a line each, the fainter the more there are. */
function markKept(u, ops, height) {
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour("kept");
  const faint = Math.min(0.35, 12 / ops.state.filter((s) => s === 2).length);
  for (let i = 0; i < ops.id.length; i++) {
    if (ops.state[i] !== 2 || i < u.scales.x.min || i > u.scales.x.max) continue;
    const x = u.valToPos(i, "x", true);
    ctx.globalAlpha = faint;
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
    const y = height(i);
    if (y === null) continue;
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.arc(x, u.valToPos(y, "y", true), 4 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
  }
  ctx.restore();
}

function depthChart(all, names, chosen) {
  const ops = plotted(all);
  const known = [...ops.low_error, ...ops.plan_error].filter((x) => x !== null).map((x) => Math.max(x, FLOOR));
  const top = Math.max(1e-3, known.reduce((a, b) => Math.max(a, b), 0)) * 4;
  // What holds NaN or infinities has no error that a number could tell: it is drawn at the top.
  const drawn = (errors, broken) => errors.map((x, i) => (broken[i] ? top : x === null ? null : Math.max(x, FLOOR)));
  const [low, plan] = [drawn(ops.low_error, ops.low_broken), drawn(ops.plan_error, ops.plan_broken)];
  const bottom = Math.max(FLOOR, known.reduce((a, b) => Math.min(a, b), 1) / 2);
  const broken = (u) => {
    const { ctx } = u;
    ctx.save();
    ctx.fillStyle = colour("fail");
    for (let i = 0; i < ops.id.length; i++) {
      if (!(ops.low_broken[i] || ops.plan_broken[i]) || i < u.scales.x.min || i > u.scales.x.max) continue;
      ctx.fillRect(u.valToPos(i, "x", true) - 2, u.bbox.top, 4, 9 * devicePixelRatio);
    }
    ctx.restore();
    markKept(u, ops, (i) => plan[i]);
  };
  const told = (i) => {
    const error = (kind) => (ops[`${kind}_broken`][i] ? t("broken_n", { n: ops[`${kind}_broken`][i] }) : number(ops[`${kind}_error`][i]));
    return `${names.of(ops.rows[i])} · ${t("all_low")}: ${error("low")} · ${t("plan")}: ${error("plan")}`;
  };
  return chart(t("depth"), {
    scales: { x: { time: false, range: fullX(ops.id.length) }, y: { distr: 3, range: () => [bottom, Math.max(top, bottom * 10)] } },
    axes: axes(opAxis(ops), logarithmic(t("error_axis"))),
    series: [{}, line("all_low", "fail"), line("plan", "pass")],
    cursor: { sync: { key: "ops" }, y: false },
    hooks: { draw: [broken] },
  }, [ops.id.map((_, i) => i), low, plan], told, (i) => chosen(ops.rows[i]));
}

const line = (label, name) => ({ label: t(label), stroke: colour(name), width: 1.5, points: { show: false }, spanGaps: true });

/** The whole of it, unless zoomed. */
const fullX = (count) => (u, min, max) => (min === null ? [0, count] : min === max ? [min - 1, max + 1] : [min, max]);

function rangeChart(all, format, names, chosen) {
  const ops = plotted(all);
  const lowest = format.smallest * 1e-4, highest = format.max * (format.max < 1e6 ? 1e6 : 1);
  const inside = (x) => (x === null ? null : Math.min(highest, Math.max(lowest, x)));
  const data = ["most", "least", "high", "low", "middle"].map((key) => ops[key].map(inside));
  const [most, least, high, low, middle] = data;
  const seen = [...most, ...least].filter((x) => x !== null);
  const edges = format.max < 1e6 ? [format.max * 4, format.smallest / 8] : [];
  const top = [...seen, ...edges].reduce((a, b) => Math.max(a, b), 1e-30) * 2;
  const bottom = [...seen, ...edges].reduce((a, b) => Math.min(a, b), 1e30) / 2;
  const labels = [];
  const zones = (u) => {
    const { ctx } = u;
    labels.length = 0;
    const zone = (from, to, name, text) => {
      if (from >= u.scales.y.max || to <= u.scales.y.min) return;
      const y1 = u.valToPos(Math.min(to, u.scales.y.max), "y", true), y2 = u.valToPos(Math.max(from, u.scales.y.min), "y", true);
      ctx.fillStyle = colour(name);
      ctx.globalAlpha = 0.13;
      ctx.fillRect(u.bbox.left, y1, u.bbox.width, y2 - y1);
      ctx.globalAlpha = 1;
      if (y2 - y1 > 14 * devicePixelRatio) labels.push([text, y1 + 3, ctx.fillStyle]);
    };
    ctx.save();
    zone(format.max, Infinity, "fail", t("zone_over", { x: number(format.max) }));
    zone(format.smallest, format.normal, "warn", t("zone_subnormal", { x: number(format.normal) }));
    zone(0, format.smallest / 2, "muted", t("zone_zero"));
    ctx.restore();
  };
  const bars = (u) => {
    const { ctx } = u;
    const room = u.bbox.width / Math.max(1, u.scales.x.max - u.scales.x.min);
    const wide = Math.min(9 * devicePixelRatio, Math.max(1, room * 0.7));
    const place = (x) => u.valToPos(Math.min(u.scales.y.max, Math.max(u.scales.y.min, x)), "y", true);
    ctx.save();
    for (let i = 0; i < ops.id.length; i++) {
      if (most[i] === null || i < u.scales.x.min || i > u.scales.x.max) continue;
      const x = u.valToPos(i, "x", true);
      ctx.fillStyle = ops.over[i] ? colour("fail") : ops.state[i] === 2 ? colour("kept") : colour("low");
      const bar = (from, to, width, alpha) => {
        if (from === null || to === null) return;
        ctx.globalAlpha = alpha;
        const y = place(to);
        ctx.fillRect(x - width / 2, y, width, Math.max(1.5, place(from) - y));
      };
      bar(least[i], most[i], Math.max(1, wide / 5), 0.55);
      bar(low[i], high[i], wide, 0.75);
      if (middle[i] !== null && wide > 3) {
        ctx.globalAlpha = 1;
        ctx.fillStyle = colour("card");
        ctx.fillRect(x - wide / 2, place(middle[i]) - 1, wide, 2);
      }
    }
    nameZones(u, labels);
    ctx.restore();
  };
  const told = (i) => `${names.of(ops.rows[i])} · ${number(ops.least[i])} … ${number(ops.most[i])} · ${t("over")} ${share(ops.over[i])} · ${t("vanishing")} ${share(ops.vanishing[i])}`;
  return chart(t("ranges"), {
    scales: { x: { time: false, range: fullX(ops.id.length) }, y: { distr: 3, range: () => [bottom, top] } },
    axes: axes(opAxis(ops), logarithmic(t("magnitude_axis"))),
    series: [{}, { paths: () => null, points: { show: false } }, { paths: () => null, points: { show: false } }],
    cursor: { sync: { key: "ops" }, y: false },
    hooks: { drawClear: [zones], draw: [bars] },
  }, [ops.id.map((_, i) => i), most, least], told, (i) => chosen(ops.rows[i]));
}

/** Names the zones, above the bars and readable on them. */
function nameZones(u, labels) {
  const { ctx } = u;
  ctx.globalAlpha = 1;
  ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  ctx.lineJoin = "round";
  ctx.lineWidth = 4 * devicePixelRatio;
  ctx.strokeStyle = colour("card");
  for (const [text, y, fillStyle] of labels) {
    ctx.fillStyle = fillStyle;
    ctx.strokeText(text, u.bbox.left + 8, y);
    ctx.fillText(text, u.bbox.left + 8, y);
  }
}

/** Points of two colours, hollow where a result was known before. */
function points(u, xs, ys, good, hollow) {
  const { ctx } = u;
  ctx.save();
  ctx.lineWidth = 1.5 * devicePixelRatio;
  for (let i = 0; i < xs.length; i++) {
    if (ys[i] === null) continue;
    ctx.strokeStyle = colour(good[i] ? "pass" : "fail");
    ctx.fillStyle = hollow && hollow[i] ? colour("card") : ctx.strokeStyle;
    ctx.beginPath();
    ctx.arc(u.valToPos(xs[i], "x", true), u.valToPos(ys[i], "y", true), 4 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}

const WHOLE = [1, 2, 5].flatMap((x) => [1, 10, 100, 1e3, 1e4, 1e5].map((y) => x * y)).sort((a, b) => a - b);

/** Evaluations are counted from 1. */
const counted = (u, ticks) => ticks.map((x) => (Number.isInteger(x) && x > 0 ? String(x) : ""));

function searchChart(trace) {
  const xs = trace.size.map((_, i) => i + 1);
  const told = (i) => [
    `${t("question")} ${i + 1}`, trace.phase[i], `${trace.size[i]} ${t("size")}`, trace.passed[i] ? t("passed") : t("failed"),
    `${t("margin")} ${number(trace.margin[i], t("not_finite"))}`, `${trace.seconds[i]} s`, trace.recalled[i] ? t("recalled") : "",
  ].filter(Boolean).join(" · ");
  return chart(t("search"), {
    scales: { x: { time: false, range: (u, min, max) => (min === null ? [0, xs.length + 1] : [min - 0.5, max + 0.5]) }, y: { range: (u, min, max) => [0, Math.max(1, max * 1.1)] } },
    axes: axes({ label: t("question"), values: counted }, { label: t("size"), incrs: WHOLE }),
    series: [{}, { stroke: colour("line-strong"), width: 1, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    cursor: { y: false },
    hooks: { draw: [(u) => points(u, xs, trace.size, trace.passed, trace.recalled)] },
  }, [xs, trace.size], told, null);
}

function marginChart(trace, bound) {
  const xs = trace.size.map((_, i) => i + 1);
  const known = trace.margin.filter((x) => x !== null && x > 0);
  const top = known.reduce((a, b) => Math.max(a, b), bound) * 2, bottom = known.reduce((a, b) => Math.min(a, b), bound) / 2;
  const ys = trace.margin.map((x, i) => (x === null ? (trace.passed[i] ? null : top / 1.2) : Math.max(bottom, x)));
  const told = (i) => [`${t("question")} ${i + 1}`, trace.phase[i], `${trace.size[i]} ${t("size")}`, `${t("margin")} ${number(trace.margin[i], t("not_finite"))}`].join(" · ");
  return chart(t("margin"), {
    scales: { x: { time: false, range: (u, min, max) => (min === null ? [0, xs.length + 1] : [min - 0.5, max + 0.5]) }, y: { distr: 3, range: () => [bottom, top] } },
    axes: axes({ label: t("question"), values: counted }, logarithmic(t("margin"))),
    series: [{}, { paths: () => null, points: { show: false } }],
    cursor: { y: false },
    hooks: { draw: [(u) => { boundLine(u, bound); points(u, xs, ys, trace.passed, trace.recalled); }] },
  }, [xs, ys], told, null);
}

function boundLine(u, bound) {
  const { ctx } = u, y = u.valToPos(bound, "y", true);
  ctx.save();
  ctx.strokeStyle = colour("muted");
  ctx.setLineDash([6, 4]);
  ctx.beginPath();
  ctx.moveTo(u.bbox.left, y);
  ctx.lineTo(u.bbox.left + u.bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

function paretoChart(pareto, bound) {
  const sorted = [...pareto].sort((a, b) => a.size - b.size);
  const xs = sorted.map((p) => p.size);
  const known = sorted.map((p) => p.margin).filter((x) => x !== null && x > 0);
  const top = known.reduce((a, b) => Math.max(a, b), bound) * 2, bottom = known.reduce((a, b) => Math.min(a, b), bound) / 2;
  const ys = sorted.map((p) => (p.margin === null ? (p.passed ? null : top / 1.2) : Math.max(bottom, p.margin)));
  const told = (i) => `${xs[i]} ${t("size")} · ${t("margin")} ${number(sorted[i].margin, t("not_finite"))}`;
  return chart(t("pareto"), {
    scales: { x: { time: false, range: (u, min, max) => [Math.max(0, (min ?? 0) - 1), (max ?? 1) + 1] }, y: { distr: 3, range: () => [bottom, top] } },
    axes: axes({ label: t("size"), values: (u, ticks) => ticks.map((x) => (Number.isInteger(x) ? String(x) : "")) }, logarithmic(t("margin"))),
    series: [{}, { stroke: colour("line-strong"), width: 1, points: { show: false } }],
    cursor: { y: false },
    hooks: { draw: [(u) => { boundLine(u, bound); points(u, xs, ys, sorted.map((p) => p.passed)); }] },
  }, [xs, ys], told, null);
}
