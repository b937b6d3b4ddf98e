"use strict";
// Everything that others wrote is put into the page by textContent, never as HTML.

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

let walk = {}; // what the arrow keys press while a case is open
let unpacking = null;
const data = () => (unpacking ??= unpacked("data").then(JSON.parse));

function made(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

const SIGNS = { p: "✓", m: "✗", e: "!", n: "–", "-": "" };
const WORDS = { p: "pass", m: "miss", e: "error", n: "not asked", "-": "not among its cases" };
const dialog = document.getElementById("cases");
const list = document.getElementById("list");
const title = document.getElementById("cases-title");
const filters = document.getElementById("filters");
const which = document.getElementById("which");
const find = document.getElementById("find");
const count = document.getElementById("count");
const AT_ONCE = 300; // cases in the list; more are found by filter and search

let open = null; // { run, suite, at, chosen: the numbers of the cases in the list }

async function showCases(last) {
  const { runs } = await data();
  const run = runs[open.run];
  const suite = run.suites[open.suite];
  const labels = run.labels.filter((label) => label in suite.at);
  const now = suite.at[open.at];
  const before = suite.at[labels[labels.indexOf(open.at) - 1]];
  title.textContent = `${open.suite} at ${open.at}`;
  filters.hidden = false;
  walk = {};
  const wanted = which.value;
  const sought = find.value.toLowerCase();
  const chosen = [];
  suite.cases.forEach(([id, , prompt], number) => {
    const outcome = now.o[number];
    const was = before ? before.o[number] : "-";
    if (outcome === "-") return;
    if (wanted === "lost" && !(was === "p" && outcome === "m")) return;
    if (wanted === "gained" && !(was === "m" && outcome === "p")) return;
    if ((wanted === "m" || wanted === "e") && outcome !== wanted) return;
    const texts = [id, prompt, now.r[number]].map((place) => run.texts[place] ?? "");
    if (sought && !texts.some((text) => text.toLowerCase().includes(sought))) return;
    chosen.push([number, outcome]);
  });
  open.chosen = chosen.map(([number]) => number);
  count.textContent = `${chosen.length} of ${suite.cases.length}` + (chosen.length > AT_ONCE ? `, the first ${AT_ONCE} shown` : "");
  list.replaceChildren(
    ...chosen.slice(0, AT_ONCE).map(([number, outcome]) => {
      const row = made("button", "case");
      row.type = "button";
      const sign = made("span", outcome, SIGNS[outcome]);
      sign.title = WORDS[outcome];
      const said = made("span", "", run.texts[now.r[number]] || "(nothing)");
      said.dir = "auto";
      row.append(sign, made("b", "", run.texts[suite.cases[number][0]]), said);
      row.addEventListener("click", () => showCase(number));
      row.dataset.case = number;
      return row;
    }),
  );
  list.querySelector(`[data-case="${last}"]`)?.focus(); // who comes back goes on where they were
}

function step(number, by, sign, words) {
  const next = open.chosen[open.chosen.indexOf(number) + by];
  const button = made("button", "", sign);
  button.title = words;
  button.setAttribute("aria-label", words);
  button.type = "button";
  button.disabled = next === undefined;
  button.addEventListener("click", () => showCase(next));
  return button;
}

async function showCase(number) {
  const { runs } = await data();
  const run = runs[open.run];
  const suite = run.suites[open.suite];
  const [id, probe, prompt, expected] = suite.cases[number].map((place) => run.texts[place]);
  title.textContent = `${open.suite}: ${id}`;
  filters.hidden = true;
  const back = made("button", "", `← ${open.suite} at ${open.at}`);
  back.type = "button";
  back.addEventListener("click", () => showCases(number));
  const previous = step(number, -1, "‹", "The case before");
  const next = step(number, 1, "›", "The case after");
  const steps = made("div", "steps");
  steps.append(back, previous, next);
  walk = { ArrowLeft: previous, ArrowRight: next };
  const asked = made("div", "asked", prompt || "(no prompt was recorded)");
  asked.dir = "auto";
  const rows = [steps, made("p", "hint", expected ? `${probe} — right: ${expected}` : probe), asked];
  let last = null;
  for (const label of run.labels.filter((name) => name in suite.at)) {
    const at = suite.at[label];
    const outcome = at.o[number];
    if (outcome === "-") continue;
    const reply = run.texts[at.r[number]];
    const row = made("div", "said");
    const said = made("div");
    said.dir = "auto";
    said.append(...(last === null || last === reply ? [reply || "(nothing)"] : changes(last, reply)));
    const why = run.texts[at.w[number]];
    if (why && outcome !== "p") said.append(made("div", "note", why));
    const sign = made("span", outcome, SIGNS[outcome]);
    sign.title = WORDS[outcome];
    row.append(made("b", "", label), sign, said);
    rows.push(row);
    last = reply;
  }
  list.replaceChildren(...rows);
  back.focus();
}

// The words (of Chinese: the characters) of `after`, those that `before` lacks marked, and what went struck out.
function changes(before, after) {
  const split = (text) => text.match(/[A-Za-z0-9_]+|\s+|[^]/gu) ?? [];
  const a = split(before);
  const b = split(after);
  if (a.length * b.length > 4e6) return [made("ins", "", after)];
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width); // of the common subsequence of what follows
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const place = i * width + j;
      longest[place] = a[i] === b[j] ? longest[place + width + 1] + 1 : Math.max(longest[place + width], longest[place + 1]);
    }
  }
  const parts = [];
  const put = (tag, text) => {
    const end = parts[parts.length - 1];
    if (end && end[0] === tag) end[1] += text;
    else parts.push([tag, text]);
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) put("", b[j]), i++, j++;
    else if (j === b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) put("del", a[i++]);
    else put("ins", b[j++]);
  }
  return parts.map(([tag, text]) => (tag ? made(tag, "", text) : text));
}

for (const cell of document.querySelectorAll("button.cell")) {
  cell.addEventListener("click", async () => {
    open = { run: Number(cell.closest("[data-run]").dataset.run), suite: cell.dataset.suite, at: cell.dataset.at };
    which.value = "all";
    find.value = "";
    await showCases();
    dialog.showModal();
  });
}
which.addEventListener("change", () => showCases());
find.addEventListener("input", () => showCases());
dialog.addEventListener("keydown", (event) => walk[event.key]?.click());
document.getElementById("close").addEventListener("click", () => dialog.close());

// --- charts ---

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axes = {};
  for (const name of ["xaxis", "yaxis", "yaxis2", "yaxis3", "yaxis4"]) {
    if (layout[name]) axes[name] = { gridcolor: colour("--grid"), zerolinecolor: colour("--grid"), ...layout[name] };
  }
  return {
    ...layout,
    ...axes,
    autosize: true,
    margin: { l: 72, r: 50, t: 50, b: 50 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
  };
}

// The blue that reads well on white is dim on black.
const inked = (traces) => JSON.parse(JSON.stringify(traces).replaceAll("#0072B2", dark() ? "#7F9BFF" : "#0072B2"));

async function draw() {
  const { runs, beside } = await data();
  for (const place of document.querySelectorAll("[data-chart]")) {
    const run = runs[place.closest("[data-run]")?.dataset.run];
    const figure = run ? run.figures[place.dataset.chart] : beside;
    const name = run ? `${run.name.replaceAll("/", "-")}-${place.dataset.chart}` : "beside";
    const config = { responsive: true, displaylogo: false, toImageButtonOptions: { format: "svg", filename: name } };
    await Plotly.react(place, inked(figure.data), themed(structuredClone(figure.layout)), config);
  }
  document.documentElement.dataset.drawn = "yes";
}

for (const group of document.querySelectorAll(".zoom")) {
  const place = group.parentElement.querySelector("[data-chart]");
  group.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen || !place.classList.contains("js-plotly-plot")) return;
    for (const button of group.children) button.setAttribute("aria-pressed", button === chosen);
    const { from, to } = chosen.dataset;
    Plotly.relayout(place, from === undefined ? WHOLE : part(place, Number(from), Number(to)));
  });
}

// What shows the steps after `from` up to `to`: plotly would leave the other axes as the whole run has them.
const WHOLE = { "xaxis.autorange": true, "yaxis2.autorange": true, "yaxis3.autorange": true, "yaxis4.autorange": true };

function part(place, from, to) {
  const ranges = { "xaxis.range": [from, to + (to - from) * 0.03] };
  for (const { x, y, yaxis } of place.data.filter(({ yaxis }) => yaxis !== "y")) {
    const seen = y.filter((value, at) => value !== null && x[at] > from && x[at] <= to);
    if (!seen.length) continue;
    const name = yaxis.replace("y", "yaxis");
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const log = place.layout[name].type === "log";
    ranges[`${name}.range`] = log ? [Math.log10(low) - 0.1, Math.log10(high) + 0.1] : [0, high * 1.08 || 1];
  }
  return ranges;
}

async function drawFirst() {
  if (!document.querySelector("[data-chart]")) return;
  const library = document.createElement("script");
  library.textContent = await unpacked("library");
  document.head.append(library);
  await draw();
}

document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// --- on paper: everything is open, and the charts are as wide as a page ---

const PAPER = 700; // pixels between the margins of A4
let folded = [];

addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
  for (const place of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(place, { width: PAPER });
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
  for (const place of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(place, { width: null, autosize: true });
});
requestAnimationFrame(() => setTimeout(drawFirst)); // the page is painted first
