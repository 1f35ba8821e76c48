"use strict";
// The sections of the page, from the data of the report.

let DATA;
const lowName = () => (DATA.format ? DATA.format.name : DATA.options.precision);

/** How ops are called. */
class Names {
  constructor(ops) { this.ops = ops; }
  type(i) { return this.ops.types[this.ops.type[i]]; }
  name(i) { return this.ops.name[i] || this.ops.path[i]; }
  of(i) { return `${this.ops.id[i]} ${this.type(i)} ${this.name(i)}`; }
  state(i) {
    const reason = this.ops.reasons[this.ops.reason[i]];
    return [reason ? `${t("pinned")}: ${reason}` : t("pinned"), lowName(), "fp32"][this.ops.state[i]];
  }
}

function section(key, ...content) {
  return el("section", { id: key, "aria-labelledby": `${key}-title` }, el("h2", { id: `${key}-title` }, t(key)), ...content);
}

const missing = () => el("p", { class: "muted" }, t(DATA.search && DATA.search.stopped ? "stopped_early" : "not_traced"));
const noteText = (note) => (!note || note === "not finite" ? t("not_finite") : note);
const marginText = (v) => (v.margin === null ? noteText(v.note) : number(v.margin));

const known = (trace) => {
  const n = (trace.recalled ?? []).filter(Boolean).length;
  return n ? t("known_before", { n }) : "";
};

function verdictSection() {
  const { verdict, kept, search, cost, options, engine, model } = DATA;
  const passed = verdict === "pass";
  const bound = number(options.margin);
  const refused = !passed && !search && DATA.mode === "auto"; // fp32 itself fails: the note says it all
  const headline = `headline_${refused ? "refused" : passed ? (kept.length ? "pass" : "none") : kept.length ? "fail" : "fail_none"}`;
  const tile = (value, label, sub) => el("div", { class: "tile" }, el("strong", {}, value), el("span", {}, label), sub ? el("small", {}, sub) : null);
  const change_of = search ? `${marginText(search.before)} → ` : "";
  const reached = DATA.margin !== null ? number(DATA.margin) : options.val_func ? t(verdict) : refused ? t("not_reached") : noteText(DATA.decided.note);
  const tiles = [
    tile(String(kept.length), t("kept_of", { n: model.candidates }), search && kept.length ? t(search.one_minimal ? "minimal" : "not_minimal") : ""),
    tile(change_of + reached, options.val_func ? t("judged_by", { f: options.val_func }) : t("margin"), t("at_most", { bound })),
    search ? tile(String(search.evaluations), t(search.evaluations === 1 ? "one_evaluation" : "evaluations", { s: number(search.seconds) }), said(search.stopped) || known(search.trace)) : null,
    cost && cost.base ? tile(change(cost.answer / cost.base), t("cost_more", { all: change(cost.all_fp32 / cost.base) }), [t(cost.measured ? "measured" : "estimated"), cost.answer > cost.all_fp32 ? t("cost_worse") : ""].filter(Boolean).join("; ")) : null,
    tile(engine.name, `${engine.version}, ${engine.device}`, t(engine.evidence)),
  ];
  return el("section", { id: "verdict", class: passed ? "good" : "bad", "aria-labelledby": "verdict-title" },
    el("div", { class: "headline" },
      el("span", { class: "badge" }, t(verdict)),
      el("h1", { id: "verdict-title" }, t(headline, { kept: opsCount(kept.length), low: lowName() }))),
    el("p", { class: "muted" }, model.path ?? "", " · ", options.val_func ? t("judged_by", { f: options.val_func }) : t("margin_is", { bound })),
    refused ? el("p", { class: "why" }, DATA.decided.note) : null,
    el("div", { class: "tiles" }, tiles),
    el("h2", {}, t("next")),
    DATA.next.command ? [el("p", {}, t("next_step", { reason: reasonText(DATA.next.reason) })), command(DATA.next.command)] : el("p", {}, t(passed ? "nothing_next" : "nothing_helps")),
    DATA.notes.length ? el("details", { open: DATA.notes.length < 6 }, el("summary", {}, `${t("notes")} (${DATA.notes.length})`), el("ul", { class: "notes" }, DATA.notes.map((n) => el("li", {}, said(n))))) : null);
}

function keptSection(page) {
  const { kept } = DATA;
  if (!kept.length) return section("kept", el("p", { class: "muted" }, t(DATA.verdict === "pass" ? "no_kept" : "none_kept")), page.detail);
  const lang = ["en", "zh"][language];
  const cause = (k) => (k.cause ? k.cause.name[lang] : "–");
  const need = (k) => (k.witness ? (k.witness.margin === null ? Infinity : k.witness.margin) : null);
  const table = new VirtualTable({
    label: t("kept"), rows: kept.length, height: 420, sort: { column: 0, down: false },
    columns: [
      { title: t("id"), width: "64px", right: true, value: (i) => kept[i].id },
      { title: t("type"), width: "minmax(88px, 1fr)", value: (i) => kept[i].type },
      { title: t("cause"), width: "minmax(130px, 1.5fr)", value: (i) => cause(kept[i]) },
      { title: t("without"), width: "112px", right: true, value: (i) => need(kept[i]), cell: (i) => (kept[i].witness ? marginText(kept[i].witness) : "–") },
    ],
    chosen: (i) => page.choose(page.wiring.at.get(kept[i].id)),
  });
  page.keptTable = table;
  const counts = new Map();
  for (const k of kept) counts.set(cause(k), (counts.get(cause(k)) ?? 0) + 1);
  const chip = (name, count, rows) => el("button", {
    type: "button", class: "chip", "aria-pressed": String(name === null),
    onclick: (event) => {
      for (const other of event.currentTarget.parentNode.children) other.setAttribute("aria-pressed", "false");
      event.currentTarget.setAttribute("aria-pressed", "true");
      table.show(rows);
    },
  }, `${name ?? t("all")} ${count}`);
  const every = kept.map((_, i) => i);
  const chips = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => chip(name, n, every.filter((i) => cause(kept[i]) === name)));
  return section("kept",
    kept.some((k) => k.cause) ? el("div", { class: "chips", role: "group", "aria-label": t("causes") }, chip(null, kept.length, every), chips) : null,
    el("div", { class: "pair" }, table.root, page.detail));
}

/** What is cheaper than fp32, as far as the judge has passed it. */
function repairsSection(page) {
  const { repairs } = DATA, lang = ["en", "zh"][language];
  if (!repairs || !repairs.tried) return null;
  if (!repairs.found.length) return section("repairs", el("p", { class: "muted" }, t("no_repair", { n: repairs.tried })));
  const link = (id) => el("button", { type: "button", class: "link", onclick: () => page.choose(page.wiring.at.get(id)) }, String(id));
  return section("repairs",
    el("p", { class: "muted" }, t("repairs_are", { n: repairs.tried })),
    el("ul", { class: "cards" }, repairs.found.map((r) => el("li", {},
      el("strong", {}, r.text[lang]),
      el("ul", { class: "facts" }, r.changes.map((c) => el("li", {}, said(c)))),
      el("p", { class: "muted" }, t("frees"), " ", r.frees.map((id) => [link(id), " "])),
      el("p", {}, el("span", { class: "good-text" }, r.verdict.margin === null ? t("pass") : `${t("margin")} ${number(r.verdict.margin)}`),
        " · ", t("ops_left", { n: r.size }), " · ", t("whole_cost", { change: change(r.cost) })),
      r.model ? el("p", { class: "muted" }, t("repaired_model", { path: r.model }), r.fp32_nodes.length ? ` --fp32_nodes ${r.fp32_nodes.join(" ")}` : "") : null))));
}

/** What is known of one op, and the ops around it. */
function detail(page, i) {
  const { ops } = DATA, k = DATA.kept.find((entry) => entry.id === ops.id[i]);
  const lang = ["en", "zh"][language];
  const lines = [];
  if (k) {
    if (k.cause) lines.push(el("p", { class: "why" }, el("strong", {}, `${k.cause.name[lang]}: `), k.cause.text[lang]));
    else lines.push(el("p", { class: "muted" }, t("cause_unknown")));
    lines.push(el("p", {}, reason(k)));
    if (k.felt_margin !== null && k.felt_margin !== undefined) lines.push(el("p", {}, t("felt", { margin: number(k.felt_margin) })));
    const link = (key, id) => el("button", { type: "button", class: "link", onclick: () => page.choose(page.wiring.at.get(id)) }, `${t(key)} ${page.names.of(page.wiring.at.get(id))}`);
    const places = k.cause ? [["born_at", k.cause.born], ["shows_at", k.cause.shows]].filter(([, id]) => id !== null && id !== k.id && page.wiring.at.has(id)) : [];
    if (places.length) lines.push(el("p", { class: "links" }, places.map(([key, id]) => link(key, id))));
  }
  if (ops.most[i] !== null && ops.most[i] !== undefined) {
    lines.push(el("p", { class: "muted" }, t("range_of", { least: number(ops.least[i]), most: number(ops.most[i]), middle: number(ops.middle[i]), high: number(ops.high[i]) }), " ",
      t("range_shares", { over: share(ops.over[i]), subnormal: share(ops.subnormal[i]), vanishing: share(ops.vanishing[i]) })));
  }
  if (ops.low_error[i] !== null && ops.low_error[i] !== undefined) {
    const error = (key) => (ops[`${key}_broken`][i] ? t("broken_n", { n: ops[`${key}_broken`][i] }) : number(ops[`${key}_error`][i]));
    lines.push(el("p", { class: "muted" }, t("errors_of", { low: error("low"), plan: error("plan") })));
  }
  return [
    el("h3", {}, `${ops.id[i]} ${page.names.type(i)} `, el("span", { class: `state s${ops.state[i]}` }, page.names.state(i)), el("small", {}, page.names.name(i))),
    ...lines,
    page.wiring.known ? graphView(page.wiring, i, page.names, (j) => page.choose(j)) : el("p", { class: "muted" }, t("no_graph")),
  ];
}

function reason(k) {
  if (k.asked) return t("asked_for");
  const w = k.witness;
  if (!w && DATA.search && DATA.search.stopped) return t("not_examined");
  if (!w) return k.saves ? t("saves") : k.witness === undefined ? "" : t("not_examined");
  const where = w.sample === null ? t("data_set") : t("sample_n", { n: w.sample }) + (w.output ? t("output_n", { name: w.output }) : "");
  return t(w.margin === null ? "witness_note" : "witness", { where, margin: w.margin === null ? noteText(w.note) : number(w.margin) });
}

function key(kind, text) {
  return el("span", { class: `key ${kind}` }, text);
}

function depthSection(page) {
  if (!DATA.traced) return section("depth", missing());
  return section("depth",
    el("p", { class: "muted" }, t("depth_is", { sample: DATA.traced.sample })),
    el("p", { class: "legend" }, key("bad-line", t("all_low")), key("good-line", t("plan")), key("dot", t("legend_kept")), key("over", t("broken_mark"))),
    depthChart(DATA.ops, page.names, (i) => page.choose(i)));
}

function rangesSection(page) {
  if (!DATA.traced) return section("ranges", missing());
  const n = DATA.traced.samples.length;
  return section("ranges",
    el("p", { class: "muted" }, t("ranges_is", { n: n === 1 ? t("one_sample") : t("n_samples", { n }) })),
    el("p", { class: "legend" }, key("low", lowName()), key("kept", t("legend_kept")), key("bad", t("legend_over"))),
    rangeChart(DATA.ops, DATA.format, page.names, (i) => page.choose(i)));
}

function marginsSection() {
  const m = DATA.margins, bound = DATA.options.margin;
  if (!m.sample.length) return section("margins", el("p", { class: "muted" }, "–"));
  const finite = [...m.low, ...m.plan, ...m.fp32].filter((x) => x !== null && x > 0);
  const top = finite.reduce((a, b) => Math.max(a, b), bound * 2), bottom = Math.min(bound / 100, Math.max(1e-6, finite.reduce((a, b) => Math.min(a, b), bound)));
  const place = (x) => 100 * Math.min(1, Math.max(0, Math.log(x / bottom) / Math.log(top / bottom)));
  const bar = (value, kind) => {
    if (value === -1 || value === undefined) return "–";
    const ok = value !== null && value <= bound;
    const fillNode = el("span", { class: `fill ${kind} ${ok ? "ok" : "out"}` });
    fillNode.style.width = `${value === null ? 100 : place(value)}%`;
    const mark = el("span", { class: "mark" });
    mark.style.left = `${place(bound)}%`;
    return el("span", { class: "meter" }, el("span", { class: "track" }, fillNode, mark), el("span", { class: "figure" }, number(value, t("not_finite"))));
  };
  const column = (name, kind) => ({ title: t(name), width: "minmax(150px, 2fr)", value: (i) => (m[kind][i] === null ? Infinity : m[kind][i]), cell: (i) => bar(m[kind][i], kind), right: false });
  const table = new VirtualTable({
    label: t("margins"), rows: m.sample.length, height: 330,
    columns: [
      { title: t("sample"), width: "80px", right: true, value: (i) => m.sample[i] },
      { title: t("output"), width: "minmax(110px, 1.3fr)", value: (i) => m.outputs[m.output[i]], cell: (i) => tail(m.outputs[m.output[i]]) },
      column("all_low", "low"), column("plan", "plan"), column("fp32", "fp32"),
    ],
  });
  return section("margins", el("p", { class: "muted" }, t("margins_is", { bound: number(bound) }), DATA.options.val_func ? ` ${t("margins_validator")}` : ""), table.root);
}

function searchSection() {
  const { search, pareto, options } = DATA;
  if (!search) return section("search", el("p", { class: "muted" }, t(DATA.mode === "manual" ? "no_search" : "not_searched")));
  const legend = el("p", { class: "legend" }, key("good-dot", t("passed")), key("bad-dot", t("failed")), key("hollow", t("recalled")));
  const hasMargins = !options.val_func;
  return section("search", el("p", { class: "muted" }, t("search_is")), legend,
    el("div", { class: "halves" }, searchChart(search.trace), hasMargins ? marginChart(search.trace, options.margin) : null),
    pareto ? [el("h3", {}, t("pareto")), paretoChart(pareto, options.margin)] : null);
}

function opsSection(page) {
  const { ops } = DATA, { names } = page;
  if (!ops.id || !ops.id.length) return section("ops", missing());
  const broken = (kind, i) => ops[`${kind}_broken`][i] > 0;
  const error = (kind) => ({
    title: t(`${kind}_error`), width: "122px", right: true,
    value: (i) => (broken(kind, i) ? Infinity : ops[`${kind}_error`][i]),
    cell: (i) => (broken(kind, i) ? el("span", { class: "alarm" }, t("not_finite")) : number(ops[`${kind}_error`][i])),
  });
  const shareOf = (name) => ({ title: t(name), width: "94px", right: true, value: (i) => ops[name][i], cell: (i) => (ops[name][i] ? el("span", { class: name === "over" ? "alarm" : "" }, share(ops[name][i])) : share(ops[name][i])) });
  const table = new VirtualTable({
    label: t("ops"), rows: ops.id.length, height: 520,
    columns: [
      { title: t("id"), width: "64px", right: true, value: (i) => ops.id[i] },
      { title: t("type"), width: "minmax(110px, 1fr)", value: (i) => names.type(i) },
      { title: t("name"), width: "minmax(160px, 2.4fr)", value: (i) => names.name(i), cell: (i) => tail(names.name(i)) },
      { title: t("precision"), width: "84px", value: (i) => ops.state[i], cell: (i) => el("span", { class: `state s${ops.state[i]}`, title: names.state(i) }, [t("pinned"), lowName(), "fp32"][ops.state[i]]) },
      { title: t("most"), width: "92px", right: true, value: (i) => ops.most[i], cell: (i) => number(ops.most[i]) },
      { title: t("least"), width: "92px", right: true, value: (i) => ops.least[i], cell: (i) => number(ops.least[i]) },
      shareOf("over"), shareOf("vanishing"), error("low"), error("plan"),
    ],
    chosen: (i) => page.choose(i, table),
  });
  page.opsTable = table;
  return section("ops", filters(page, table), table.root);
}

function filters(page, table) {
  const { ops } = DATA, { names } = page;
  const text = el("input", { type: "search", placeholder: t("filter"), "aria-label": t("filter"), oninput: () => apply() });
  const type = el("select", { "aria-label": t("type"), onchange: () => apply() }, el("option", { value: "" }, t("any_type")),
    ops.types.map((name, at) => el("option", { value: String(at) }, name)));
  const box = (label) => el("label", {}, el("input", { type: "checkbox", onchange: () => apply() }), label);
  const [kept, over, broken] = [box(t("only_kept")), box(t("only_over")), box(t("only_broken"))];
  const count = el("output", {});
  const low = ops.id.map((id, i) => `${id} ${names.type(i)} ${ops.name[i]} ${ops.path[i]}`.toLowerCase());
  const apply = () => {
    const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    for (let i = 0; i < ops.id.length; i++) {
      if (type.value !== "" && ops.type[i] !== Number(type.value)) continue;
      if (kept.firstChild.checked && ops.state[i] !== 2) continue;
      if (over.firstChild.checked && !(ops.marks[i] & 1)) continue;
      if (broken.firstChild.checked && !(ops.marks[i] & 2)) continue;
      if (!words.every((word) => (/^\d+$/.test(word) ? String(ops.id[i]) === word || names.name(i).toLowerCase().includes(word) : low[i].includes(word)))) continue;
      rows.push(i);
    }
    table.show(rows);
    table.view.scrollTop = 0;
    count.textContent = t("shown_of", { n: rows.length, all: ops.id.length });
  };
  count.textContent = t("shown_of", { n: ops.id.length, all: ops.id.length });
  return el("div", { class: "filters" }, text, type, kept, over, broken, count);
}

function againSection() {
  const { options, engine, model, files } = DATA;
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);
  const bound = number(options.margin);
  const rule = options.val_func ? t("rule_validator", { f: options.val_func, scope: options.val_scope })
    : options.cos_sim !== null && options.cos_sim !== undefined ? t("rule_cosine", { cos: options.cos_sim, bound })
      : t("rule_tolerance", { atol: options.atol, rtol: options.rtol, bound });
  const written = Object.entries(files);
  return section("again",
    el("p", {}, t("ran")), command(["topsideas", ...options.command.map(quote)].join(" ")),
    el("ul", { class: "facts" },
      el("li", {}, t("made_with", { version: DATA.version, engine: engine.name, engine_version: engine.version, device: engine.device, evidence: t(engine.evidence) })),
      el("li", {}, t("model_is", { path: model.path ?? "–", sha: model.sha256, opset: model.opset, ops: model.ops })),
      el("li", {}, rule)),
    written.length ? el("details", {}, el("summary", {}, t("files")), el("ul", { class: "facts" }, written.map(([role, path]) => el("li", {}, `${role}: ${path}`)))) : null,
    el("p", { class: "muted" }, t("holds_for")));
}
