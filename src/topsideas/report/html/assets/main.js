"use strict";
// Puts the page together, and again when its language or its colours change.

const SECTIONS = ["verdict", "kept", "repairs", "depth", "ranges", "margins", "search", "ops", "again"];

const page = {
  selected: null,

  render() {
    document.documentElement.lang = language ? "zh-CN" : "en";
    for (const node of document.querySelectorAll("[data-i18n]")) node.textContent = t(node.dataset.i18n);
    for (const node of document.querySelectorAll("[data-i18n-label]")) node.setAttribute("aria-label", t(node.dataset.i18nLabel));
    this.names = new Names(DATA.ops);
    try {
      this.wiring = new Wiring(DATA.ops);
    } catch {
      this.wiring = { at: new Map(), known: false };
    }
    this.keptTable = this.opsTable = null;
    this.detail = el("div", { class: "detail", "aria-live": "polite" });
    const main = document.getElementById("main");
    const makers = { verdict: verdictSection, kept: keptSection, repairs: repairsSection, depth: depthSection, ranges: rangesSection, margins: marginsSection, search: searchSection, ops: opsSection, again: againSection };
    const sections = SECTIONS.map((key) => whole(key, () => makers[key](this))).filter(Boolean);
    main.replaceChildren(...sections);
    const shown = SECTIONS.filter((key) => sections.some((node) => node.id === key));
    document.getElementById("nav").replaceChildren(...shown.map((key) => el("a", { href: `#${key}` }, t(key))));
    document.getElementById("footer").textContent = `topsideas ${DATA.version}`;
    switches();
    const first = DATA.kept.length ? this.wiring.at.get(DATA.kept[0].id) : DATA.ops.id.length ? 0 : undefined;
    whole("kept", () => this.choose(this.selected ?? first, null, true));
  },

  /** Show one op, wherever it was chosen. */
  choose(i, from = null, quiet = false) {
    if (i === undefined || i === null) return;
    this.selected = i;
    this.detail.replaceChildren(...detail(this, i));
    const row = DATA.kept.findIndex((k) => k.id === DATA.ops.id[i]);
    if (this.keptTable) this.keptTable.select(row, true);
    if (this.opsTable) this.opsTable.select(i, true);
    if (!quiet) document.getElementById("announce").textContent = this.names.of(i);
    if (from && !quiet) this.detail.scrollIntoView({ block: "nearest", behavior: "smooth" });
  },
};

/** A section; where the data is not as it should be, it says so and the others are shown. */
function whole(key, make) {
  try {
    return make();
  } catch {
    return section(key, el("p", { class: "alarm" }, t("spoilt")));
  }
}

function remembered(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`topsideas.${key}`);
    localStorage.setItem(`topsideas.${key}`, value);
  } catch { /* a file may be refused a memory */ }
  return null;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switches() {
  const theme = document.getElementById("theme"), lang = document.getElementById("language");
  theme.textContent = t(isDark() ? "light" : "dark");
  theme.title = t("theme");
  lang.textContent = language ? "English" : "中文";
  lang.lang = language ? "en" : "zh";
  lang.title = t("language");
}

function start() {
  DATA = JSON.parse(document.getElementById("data").textContent);
  for (const key of ["id", "name", "path", "reads", "state", "marks"]) DATA.ops[key] ??= [];
  language = (remembered("language") ?? navigator.language).startsWith("zh") ? 1 : 0;
  const theme = remembered("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  document.getElementById("language").addEventListener("click", () => {
    language = 1 - language;
    remembered("language", language ? "zh" : "en");
    page.render();
  });
  document.getElementById("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remembered("theme", document.documentElement.dataset.theme);
    page.render();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.render());
  page.render();
}

start();
