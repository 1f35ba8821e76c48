"use strict";
// A table of any length: only the rows in sight are in the document.

const ROW = 30;
const SPARE = 8;

/**
 * columns: {key, title, width, value(i), cell(i)?, right?, start?}: what to sort by, what to show.
 * rows: how many there are; chosen(i): called when one is selected.
 */
class VirtualTable {
  constructor({ label, columns, rows, chosen, sort, height }) {
    this.columns = columns;
    this.rows = rows;
    this.chosen = chosen;
    this.sort = sort ?? { column: 0, down: false };
    this.order = Array.from({ length: rows }, (_, i) => i);
    this.selected = -1;
    this.drawn = new Map();
    const template = columns.map((c) => c.width).join(" ");
    this.head = el("div", { class: "row head", role: "row" }, columns.map((c, at) => this.header(c, at)));
    this.space = el("div", { class: "space", role: "rowgroup" });
    this.view = el("div", {
      class: "view", tabindex: "0", role: "grid", "aria-label": label, "aria-rowcount": String(rows),
      onscroll: () => this.draw(), onkeydown: (event) => this.press(event),
    }, this.head, this.space);
    this.view.style.setProperty("--columns", template);
    const least = columns.reduce((sum, c) => sum + Number(c.width.match(/\d+/)[0]), 0);
    this.view.style.setProperty("--least", `${least}px`);
    this.view.style.maxHeight = `${height ?? 480}px`;
    this.root = el("div", { class: "table" }, this.view);
    this.show(this.order);
    new ResizeObserver(() => this.draw()).observe(this.view);
  }

  header(column, at) {
    return el("button", {
      type: "button", role: "columnheader", class: column.right ? "right" : "",
      title: t("sort", { name: column.title }),
      onclick: () => {
        const first = column.right ? true : false;
        const same = this.sort.column === at;
        this.sort = { column: at, down: same ? !this.sort.down : first };
        this.show(this.order);
      },
    }, column.title, el("span", { class: "arrow", "aria-hidden": "true" }));
  }

  /** Show these rows, sorted; what has no value comes last, whichever way it is sorted. */
  show(rows) {
    const { column, down } = this.sort;
    const keys = new Map(rows.map((i) => [i, this.columns[column].value(i)]));
    const sign = down ? -1 : 1;
    this.order = [...rows].sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      const gone = (x === null || x === undefined) - (y === null || y === undefined);
      if (gone) return gone;
      return (x < y ? -1 : x > y ? 1 : 0) * sign || a - b;
    });
    [...this.head.children].forEach((cell, at) => {
      cell.setAttribute("aria-sort", at !== column ? "none" : down ? "descending" : "ascending");
    });
    this.space.style.height = `${this.order.length * ROW}px`;
    this.view.setAttribute("aria-rowcount", String(this.order.length));
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.view.scrollTop / ROW) - SPARE);
    const last = Math.min(this.order.length, Math.ceil((this.view.scrollTop + this.view.clientHeight) / ROW) + SPARE);
    for (const [at, row] of this.drawn) {
      if (at < first || at >= last) {
        row.remove();
        this.drawn.delete(at);
      }
    }
    for (let at = first; at < last; at++) {
      if (!this.drawn.has(at)) {
        const row = this.row(at);
        this.drawn.set(at, row);
        this.space.append(row);
      }
    }
  }

  row(at) {
    const index = this.order[at];
    const cells = this.columns.map((c) => {
      const shown = c.cell ? c.cell(index) : String(c.value(index) ?? "–");
      const text = typeof shown === "string" ? shown : "";
      return el("div", { role: "gridcell", class: c.right ? "right" : "", title: text.length > 12 ? text : null }, shown);
    });
    const row = el("div", {
      class: "row", role: "row", "aria-rowindex": String(at + 1),
      "aria-selected": String(index === this.selected), onclick: () => this.select(index),
    }, cells);
    row.style.top = `${at * ROW}px`;
    return row;
  }

  select(index, quiet = false) {
    this.selected = index;
    for (const [at, row] of this.drawn) {
      row.setAttribute("aria-selected", String(this.order[at] === index));
    }
    if (!quiet && this.chosen) this.chosen(index);
  }

  press(event) {
    if (event.target !== this.view) return;
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !this.order.length) return;
    event.preventDefault();
    const now = this.order.indexOf(this.selected);
    const to = Math.min(this.order.length - 1, Math.max(0, (now < 0 && step > 0 ? -1 : now) + step));
    this.scrollTo(to);
    this.select(this.order[to]);
  }

  scrollTo(at) {
    const [top, room] = [at * ROW, this.view.clientHeight - ROW * 1.5];
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top > this.view.scrollTop + room) this.view.scrollTop = top - room;
    this.draw();
  }
}
