"use strict";
// The ops around one op, laid out from what is read to what reads.

const AROUND = 2; // steps up and down
const MOST_NODES = 26;
const [NODE_WIDTH, NODE_HEIGHT] = [138, 44];

class Wiring {
  constructor(ops) {
    this.ops = ops;
    this.at = new Map(ops.id.map((id, i) => [id, i]));
    this.reads = ops.reads.map((ids) => ids.map((id) => this.at.get(id)).filter((i) => i !== undefined));
    this.readers = ops.id.map(() => []);
    this.reads.forEach((sources, i) => sources.forEach((source) => this.readers[source].push(i)));
    this.known = this.reads.some((sources) => sources.length > 0);
  }

  /** The ops around one, the nearest first, and how many were left out. */
  around(centre) {
    const found = new Set([centre]);
    let edge = [centre], left = 0;
    for (let step = 0; step < AROUND; step++) {
      const next = [];
      for (const i of edge) {
        for (const j of [...this.reads[i], ...this.readers[i]]) {
          if (found.has(j)) continue;
          if (found.size >= MOST_NODES) { left++; continue; }
          found.add(j);
          next.push(j);
        }
      }
      edge = next;
    }
    return { nodes: [...found].sort((a, b) => a - b), left };
  }
}

function graphView(wiring, centre, names, chosen) {
  const { ops } = wiring;
  const { nodes, left } = wiring.around(centre);
  const shown = new Set(nodes);
  const graph = new dagre.graphlib.Graph().setGraph({ rankdir: "LR", nodesep: 14, ranksep: 46, marginx: 12, marginy: 12 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const i of nodes) graph.setNode(String(i), { width: NODE_WIDTH, height: NODE_HEIGHT });
  for (const i of nodes) for (const j of wiring.reads[i]) if (shown.has(j)) graph.setEdge(String(j), String(i));
  dagre.layout(graph);
  const { width, height } = graph.graph();
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": t("neighbourhood", { op: ops.id[centre] }) },
    svg("defs", {}, svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" },
      svg("path", { d: "M0 0L8 4L0 8z", class: "tip" }))));
  for (const edge of graph.edges()) picture.append(edgeOf(ops, Number(edge.v), Number(edge.w), graph.edge(edge).points));
  for (const i of nodes) picture.append(nodeOf(ops, i, graph.node(String(i)), i === centre, names, chosen));
  picture.style.minWidth = `${Math.round(0.72 * width)}px`;
  const canvas = el("div", { class: "canvas" }, picture);
  requestAnimationFrame(() => { canvas.scrollLeft = graph.node(String(centre)).x * picture.clientWidth / width - canvas.clientWidth / 2; });
  return el("div", { class: "graph" }, canvas, legend(left));
}

function edgeOf(ops, from, to, points) {
  const [a, b] = [ops.state[from], ops.state[to]];
  const cast = (a === 2 && b === 1) || (a === 1 && b === 2);
  const kind = cast ? "cast" : a === 2 && b === 2 ? "island" : "";
  const path = points.map((p, i) => `${i ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("");
  return svg("path", { d: path, class: `edge ${kind}`, "marker-end": "url(#tip)" });
}

function nodeOf(ops, i, place, centre, names, chosen) {
  const room = 14 - String(ops.id[i]).length, type = names.type(i), name = names.name(i);
  const state = ["pinned", "low", "kept"][ops.state[i]];
  const [x, y] = [place.x - NODE_WIDTH / 2, place.y - NODE_HEIGHT / 2];
  return svg("g", {
    class: `node ${state}${centre ? " centre" : ""}`, transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
    tabindex: "0", role: "button", "aria-label": `${names.of(i)}, ${names.state(i)}`,
    onclick: () => chosen(i), onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); chosen(i); } },
  },
  svg("title", {}, `${names.of(i)}\n${names.state(i)}`),
  svg("rect", { width: NODE_WIDTH, height: NODE_HEIGHT, rx: 8 }),
  svg("text", { x: 10, y: 18, class: "type" }, `${ops.id[i]} ${type.length > room ? `${type.slice(0, room - 1)}…` : type}`),
  svg("text", { x: 10, y: 34, class: "name" }, name.length > 19 ? `…${name.slice(-18)}` : name),
  ops.marks[i] & 1 ? svg("circle", { cx: NODE_WIDTH - 4, cy: 3, r: 5.5, class: "over" }) : null);
}

function legend(left) {
  const entry = (kind, text) => el("span", { class: `key ${kind}` }, text);
  return el("p", { class: "legend" },
    entry("kept", t("legend_kept")), entry("low", lowName()), entry("pinned", t("legend_pinned")),
    entry("cast", t("legend_cast")), entry("over", t("legend_over")),
    left ? el("span", {}, t("graph_more", { n: left })) : null);
}
