"use strict";
// Reads values off the charts: the legend shows the step under the pointer, or the one chosen with the arrow keys.
function connectChart(figure) {
  const data = JSON.parse(figure.dataset.readout);
  const svg = figure.querySelector("svg");
  const cursor = svg.querySelector(".cursor");
  const label = svg.querySelector(".at");
  const outputs = [...figure.querySelectorAll("output[data-series]")];
  const latest = outputs.map((output) => output.textContent);
  let index = null;
  function show(next) {
    index = next;
    const x = next === null ? 0 : data.x[next];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", next === null ? "hidden" : "visible");
    const width = svg.viewBox.baseVal.width;
    label.setAttribute("x", x > width - 70 ? x - 5 : x + 5);
    label.setAttribute("text-anchor", x > width - 70 ? "end" : "start");
    label.textContent = next === null ? "" : "step " + data.step[next];
    outputs.forEach((output, series) => {
      output.textContent = next === null ? latest[series] : data.values[series][next] ?? "–";
    });
  }
  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let best = 0;
    data.x.forEach((candidate, i) => {
      if (Math.abs(candidate - x) < Math.abs(data.x[best] - x)) best = i;
    });
    return best;
  }
  svg.addEventListener("pointermove", (event) => show(nearest(event)));
  svg.addEventListener("pointerdown", (event) => show(nearest(event)));
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(null));
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const last = data.x.length - 1;
    show(index === null ? (move > 0 ? 0 : last) : Math.min(last, Math.max(0, index + move)));
  });
}

// Hides what the form's choices exclude: single completions, and groups of which nothing is left.
function applyFilters(form) {
  const wanted = Object.fromEntries(new FormData(form));
  const [level, component] = wanted.component.split(" ");
  const text = wanted.text.trim().toLowerCase();
  let groups = 0;
  let completions = 0;
  for (const group of document.querySelectorAll(".group[data-group]")) {
    let shown = 0;
    const head = group.querySelector("summary").textContent.toLowerCase();
    for (const one of group.querySelectorAll(".completion")) {
      const fits =
        (!wanted.outcome || one.dataset.outcome.split(" ").includes(wanted.outcome)) &&
        (!wanted.error || one.dataset.error === wanted.error) &&
        (!component || one.dataset[level].split(" ").includes(component)) &&
        (!text || head.includes(text) || one.textContent.toLowerCase().includes(text));
      one.hidden = !fits;
      if (fits) shown += Number(one.dataset.count);
    }
    group.hidden = !shown || Boolean(wanted.group && group.dataset.group !== wanted.group);
    if (!group.hidden) {
      groups += 1;
      completions += shown;
    }
  }
  form.querySelector(".count").textContent = `${completions} completions in ${groups} groups`;
}

function connect(root) {
  root.querySelectorAll(".chart").forEach(connectChart);
}

connect(document);
const filterForm = document.querySelector(".filters");
if (filterForm) {
  filterForm.addEventListener("input", () => applyFilters(filterForm));
  filterForm.addEventListener("submit", (event) => event.preventDefault());
  applyFilters(filterForm);
}
document.documentElement.dataset.ready = "yes";
