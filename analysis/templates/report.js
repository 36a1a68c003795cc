// What the report's page does: one set of controls over the front's chart and the table of networks. Texts of a study reach
// the page as text nodes or escaped, never as markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const { networks, dense, axes, kinds, columns, measure } = data;
  const MISSING = "–", ROWS = 100, UP = measure.rising ? 1 : -1, MARK = measure.kind === "share" ? "%" : "";
  const MEASURED = ["value", "test", "before"];
  const byId = (id) => document.getElementById(id);
  const control = (name) => byId("controls").elements[name];
  const significant = (value) => value.toPrecision(3).replace(/\.$/, "");
  const amount = (value) => {
    const unit = [[1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([size]) => value >= size);
    return unit ? significant(value / unit[0]) + unit[1] : String(value);
  };
  const FORMATS = {
    text: (value) => value,
    factor: (value) => `${significant(value)}×`,
    share: (value) => `${(100 * value).toFixed(2)}%`,
    percent: (value) => `${value.toFixed(1)}%`,
    amount,
    number: (value) => String(Number(value.toPrecision(4))),
  };
  const shown = (kind, value) => (value === null ? MISSING : FORMATS[kind](value));
  // Plotly takes some markup in texts.
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const state = { sort: "value", descending: measure.rising, rows: ROWS };
  const axisNow = () => axes.find((axis) => axis.key === control("axis").value);
  const heightsNow = () => (control("split") && control("split").value === "test" ? "test" : "value");

  function visible() {
    const [family, form, confirmed] = ["family", "form", "confirmed"].map((name) => control(name)?.value ?? "");
    const words = control("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const frontAlone = control("front").checked, withinAlone = control("within")?.checked;
    return networks.id.map((_, i) => i).filter((i) => {
      const text = `${networks.id[i]} ${networks.kind[i]} ${networks.recipe[i]}`.toLowerCase();
      return (!family || networks.family[i] === family) && (!form || networks.form[i] === form) &&
        (!frontAlone || networks.front[i]) && (!withinAlone || networks.within[i]) && (!confirmed || (networks.test[i] !== null) === (confirmed === "yes")) &&
        words.every((word) => text.includes(word));
    });
  }

  // The best value at each value of the axis, or beyond it.
  function staircase(points, rising) {
    const best = [];
    let reached = -UP * Infinity;
    for (const point of [...points].sort((a, b) => (rising ? b.x - a.x : a.x - b.x) || UP * (b.y - a.y))) {
      if (UP * (point.y - reached) > 0) best.unshift(point), (reached = point.y);
    }
    const worst = points.reduce((found, { x }) => (rising ? Math.min(found, x) : Math.max(found, x)), best[0]?.x);
    return best.length ? [{ ...best[0], x: worst }, ...best] : best;
  }

  function hover(i) {
    const lines = columns.filter(({ kind }) => kind !== "text").map(({ key, label, kind }) =>
      `${escaped(label)}: <b>${escaped(shown(kind, networks[key][i]))}</b>`);
    const recipe = `${networks.family[i]}: ${networks.recipe[i]}`.split("; ").map(escaped).join(";<br>");
    return [recipe, ...lines, escaped(networks.id[i])].join("<br>");
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = matchMedia("(max-width: 40rem)");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function layout(x, y, more = {}) {
    const [ink, line, sheet] = ["--ink", "--line", "--sheet"].map(colour);
    const axis = { gridcolor: line, linecolor: ink, zeroline: false, automargin: true, ticks: "outside", tickcolor: line };
    return {
      paper_bgcolor: sheet, plot_bgcolor: sheet, font: { color: ink, family: "system-ui, sans-serif", size: 13 },
      margin: { l: 10, r: 12, t: 12, b: 10 }, hovermode: "closest", dragmode: narrow.matches ? false : "zoom",
      hoverlabel: { bgcolor: sheet, bordercolor: ink, font: { color: ink, size: 12 }, align: "left" },
      legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 }, xaxis: { ...axis, ...x }, yaxis: { ...axis, ...y }, ...more,
    };
  }
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"], showTips: false };

  function drawFront(rows) {
    const axis = axisNow(), heights = heightsNow(), ink = colour("--ink"), sheet = colour("--sheet");
    const at = (some, i) => ({ x: some[axis.key][i], y: some[heights][i] === null ? null : measure.scale * some[heights][i], i });
    const there = ({ x, y }) => x !== null && y !== null && (x > 0 || !axis.log);
    const points = rows.map((i) => at(networks, i)).filter(there);
    const roots = dense.id.map((_, i) => at(dense, i)).filter(there);
    const traces = kinds.map(({ name, colour: light, dark: inTheDark, symbol }) => {
      const fill = dark.matches ? inTheDark : light;
      const own = points.filter(({ i }) => networks.kind[i] === name);
      return {
        name, type: "scatter", mode: "markers", x: own.map(({ x }) => x), y: own.map(({ y }) => y),
        customdata: own.map(({ i }) => i), text: own.map(({ i }) => hover(i)), hovertemplate: "%{text}<extra></extra>",
        marker: {
          color: fill, symbol, opacity: own.map(({ i }) => (networks.within[i] ? 0.9 : 0.3)),
          size: own.map(({ i }) => (networks.front[i] ? 10 : 7)),
          line: { color: own.map(({ i }) => (networks.front[i] ? ink : sheet)), width: own.map(({ i }) => (networks.front[i] ? 1.5 : 0.5)) },
        },
      };
    }).filter(({ x }) => x.length);
    const steps = staircase([...points, ...roots], axis.rising);
    traces.unshift({
      name: "best shown", type: "scatter", mode: "lines", line: { shape: "vh", color: ink, width: 1.5 }, hoverinfo: "skip",
      x: steps.map(({ x }) => x), y: steps.map(({ y }) => y),
    });
    traces.push({
      name: "dense", type: "scatter", mode: "markers", x: roots.map(({ x }) => x), y: roots.map(({ y }) => y),
      marker: { symbol: "star", size: 15, color: "#F0C419", line: { color: ink, width: 1 } },
      text: roots.map(({ x, y, i }) => `dense, seed ${dense.seed[i]}${escaped(data.forms.length > 1 ? `, ${dense.form[i]}` : "")}<br>${escaped(shown(measure.kind, y / measure.scale))}`),
      hovertemplate: "%{text}<extra></extra>",
    });
    // Better is higher: of a measure to be minimised the axis is upside down.
    const all = [...points, ...roots].map(({ y }) => UP * y), top = Math.max(...all);
    const floor = Math.max(Math.min(...all), Math.min(...roots.map(({ y }) => UP * y)) - measure.visible);
    const margin = 0.04 * (top - floor) + measure.visible / 150;
    const doubling = axis.log && axis.kind === "factor";
    const x = {
      title: { text: escaped(narrow.matches ? axis.short : axis.label), standoff: 8 }, type: axis.log ? "log" : "linear", autorange: axis.rising || "reversed",
      ...(doubling ? { dtick: Math.log10(2), tickformat: "~g", ticksuffix: "×" } : axis.log ? { tickformat: "~s", nticks: 8 } : { ticksuffix: axis.kind === "percent" ? "%" : "" }),
    };
    const y = {
      title: { text: escaped(heights === "test" ? measure.test : measure.label), standoff: 8 }, ticksuffix: MARK,
      ...(all.length ? { range: [UP * (floor - margin), UP * (top + margin)] } : {}),
    };
    Plotly.react("front", traces, layout(x, y, { uirevision: `${axis.key} ${heights}` }), CONFIG);
    const below = points.filter((point) => UP * point.y < floor - margin).length;
    byId("shown").textContent = `${points.length} of ${networks.id.length} networks` +
      (below ? `, ${below} of them worse than what is drawn (double-click the chart for all)` : "");
  }

  function drawHypervolume() {
    const trace = {
      type: "scatter", mode: "lines", line: { shape: "hv", color: colour("--accent"), width: 2 },
      x: data.hypervolume.epochs, y: data.hypervolume.hypervolume,
      hovertemplate: "%{y:.4f} after %{x:,} epochs<extra></extra>",
    };
    const x = { title: { text: "epochs computed, all pruned networks together", standoff: 8 }, rangemode: "tozero" };
    const y = { title: { text: "hypervolume", standoff: 8 }, rangemode: "tozero" };
    Plotly.react("hypervolume", [trace], layout(x, y), CONFIG);
  }

  function say(text) {
    byId("said").textContent = text;
    byId("said").hidden = false;
  }

  async function copy(i) {
    const command = networks.command[i];
    try {
      await navigator.clipboard.writeText(command);
      say(`Copied: ${command}`);
    } catch {
      say(`This browser doesn't let a page copy; the command is: ${command}`);
    }
  }

  function heading({ key, label, kind }) {
    const cell = make("th", "", { class: kind === "text" ? "text" : "number", scope: "col" });
    const sorted = state.sort === key;
    cell.setAttribute("aria-sort", sorted ? (state.descending ? "descending" : "ascending") : "none");
    const button = make("button", label + (sorted ? (state.descending ? " ▼" : " ▲") : ""), { type: "button" });
    button.addEventListener("click", () => {
      const rising = axes.find((axis) => axis.key === key)?.rising ?? (MEASURED.includes(key) ? measure.rising : kind !== "text");
      Object.assign(state, { sort: key, descending: sorted ? !state.descending : rising, rows: ROWS });
      drawTable(visible());
      byId("networks").querySelectorAll("th button")[columns.findIndex((column) => column.key === key)].focus();
    });
    cell.append(button);
    return cell;
  }

  function row(i) {
    const line = make("tr", "", networks.front[i] ? { class: "on-front" } : {});
    for (const { key, kind } of columns) {
      line.append(make("td", shown(kind, networks[key][i]), { class: kind === "text" ? key : "number" }));
    }
    const button = make("button", "Copy", { type: "button", "aria-label": `Copy the command that exports ${networks.id[i]}` });
    button.addEventListener("click", () => copy(i));
    const cell = make("td", "");
    cell.append(button);
    line.append(cell);
    return line;
  }

  function drawTable(rows) {
    const values = networks[state.sort], sign = state.descending ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    const sorted = [...rows].sort((a, b) => {
      const [first, second] = [values[a], values[b]];
      if (first === null || second === null) return (first === null) - (second === null);
      return sign * compare(first, second) || a - b;
    });
    const table = make("table", ""), head = make("thead", ""), titles = make("tr", ""), body = make("tbody", "");
    titles.append(...columns.map(heading), make("th", "export", { scope: "col" }));
    head.append(titles);
    body.append(...sorted.slice(0, state.rows).map(row));
    table.append(head, body);
    byId("networks").replaceChildren(table);
    byId("more").hidden = sorted.length <= state.rows;
    byId("more").textContent = `Show more (${sorted.length - state.rows} left)`;
  }

  function draw() {
    const rows = visible();
    drawFront(rows);
    drawTable(rows);
  }

  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("input", () => {
    state.rows = ROWS;
    draw();
  });
  byId("more").addEventListener("click", () => {
    state.rows += ROWS;
    drawTable(visible());
  });
  const everything = () => {
    draw();
    drawHypervolume();
  };
  document.documentElement.classList.add("scripted");
  everything();
  byId("front").on("plotly_click", ({ points }) => {
    if (points[0].customdata !== undefined) copy(points[0].customdata);
  });
  for (const query of [dark, narrow]) query.addEventListener("change", everything);
})();
