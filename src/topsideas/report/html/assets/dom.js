"use strict";
// Elements are built from text only: a name out of a model never becomes markup.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== false) node.append(child);
  }
  return node;
}

/** An HTML element. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** A colour of the page's theme. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Four digits, as the console shows them. */
function number(x, missing = "–") {
  if (x === null || x === undefined) return missing;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(x.toPrecision(size > 6e4 ? 5 : 4)));
}

/** A share as a percentage that never rounds something to nothing. */
function share(x) {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  if (x < 1e-4) return "<0.01 %";
  return `${Number((100 * x).toPrecision(2))} %`;
}

/** A share with its sign. */
function change(x) {
  return x === 0 ? "0" : `${x < 0 ? "−" : "+"}${share(Math.abs(x))}`;
}

function opsCount(n) {
  return n === 1 ? t("one_op") : n === 0 ? t("no_ops") : t("n_ops", { n });
}

/** A name of which the end is kept in sight where there is no room: that is where names differ. */
function tail(name) {
  return el("span", { class: "tail", title: name }, el("bdi", {}, name));
}

/** A command with a button that copies it. */
function command(text) {
  const button = el("button", {
    type: "button",
    class: "copy",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = t("copied");
      setTimeout(() => { button.textContent = t("copy"); }, 1500);
    },
  }, t("copy"));
  // A line may end between words, not behind the dashes of a flag.
  const words = text.split(/( )/).map((word) => (word.startsWith("-") ? el("span", { class: "flag" }, word) : word));
  const code = el("code", {}, ...words);
  return el("div", { class: "command" }, el("pre", { tabindex: "0" }, code), button);
}
