// The charts of a report: drawn from the numbers in the page, all with one axis of time.
(() => {
  "use strict";

  const data = JSON.parse(document.getElementById("data").textContent);
  const whole = [data.start, data.start + data.length];
  const charts = [...document.querySelectorAll(".chart")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // A finger that moves over a chart scrolls the page; the buttons zoom.
  const drags = !matchMedia("(pointer: coarse)").matches;
  const COLORS = 7;
  const PRINTED_WIDTH = 330;
  const SHORTEST_MS = 10;
  const DAY_MS = 86400000;

  let view = whole;

  // ---- numbers ------------------------------------------------------------------------------

  const floats = (text) => {
    if (text === null) return null;
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  // As text: the library takes numbers for moments, and shows them in the reader's time zone.
  const texts = (moments) =>
    moments.map((at) => new Date(at).toISOString().replace("T", " ").replace("Z", ""));
  const times = data.times.map((text) =>
    texts(Array.from(floats(text), (seconds) => data.start + 1000 * seconds)));

  const isolated = (values) => Array.from(values, (value, place) =>
    !isNaN(value) && !(values[place - 1] === values[place - 1] && place > 0) &&
    !(place + 1 < values.length && values[place + 1] === values[place + 1]));

  // The band is one closed shape for each stretch without a gap: there along the highest values,
  // back along the lowest.
  const band = (x, low, high) => {
    const outline = { x: [], y: [] };
    const close = (begin, end) => {
      if (end - begin < 2) return;
      for (let place = begin; place < end; place += 1) {
        outline.x.push(x[place]);
        outline.y.push(high[place]);
      }
      for (let place = end - 1; place >= begin; place -= 1) {
        outline.x.push(x[place]);
        outline.y.push(low[place]);
      }
      outline.x.push(x[begin], x[begin]);
      outline.y.push(high[begin], null);
    };
    let begin = 0;
    for (let place = 0; place <= x.length; place += 1) {
      if (place === x.length || isNaN(low[place]) || isNaN(high[place])) {
        close(begin, place);
        begin = place + 1;
      }
    }
    return outline;
  };

  // ---- looks --------------------------------------------------------------------------------

  const color = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const lineColor = (number) => color(`line-${1 + number % COLORS}`);

  const faint = (hex) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${red},${green},${blue},0.22)`;
  };

  const traces = (chart) => chart.lines.flatMap((line, number) => {
    const x = times[line.x];
    const y = floats(line.y);
    const low = floats(line.low);
    const high = floats(line.high);
    const paint = line.limit ? color("soft") : lineColor(number);
    const alone = isolated(y);
    const unit = chart.unit ? ` ${chart.unit}` : "";
    const main = {
      type: "scatter", name: line.label, legendgroup: line.label, x, y, connectgaps: false,
      mode: alone.includes(true) ? "lines+markers" : "lines",
      marker: { color: paint, size: alone.map((is) => (is ? 5 : 0)) },
      line: { color: paint, width: 1.5, dash: line.limit ? "dot" : "solid", simplify: true },
      hovertemplate: low === null
        ? `%{y:,.5~r}${unit}` : `%{y:,.5~r}${unit} (%{text})`,
    };
    if (low === null) return [main];
    main.text = Array.from(low, (value, place) => isNaN(value)
      ? "" : `${+value.toPrecision(5)} to ${+high[place].toPrecision(5)}`);
    const shape = band(x, low, high);
    return [{
      type: "scatter", name: line.label, legendgroup: line.label, showlegend: false, mode: "lines",
      x: shape.x, y: shape.y, fill: "toself", fillcolor: faint(paint), line: { width: 0 },
      connectgaps: false, hoverinfo: "skip",
    }, main];
  });

  const axes = () => ({ gridcolor: color("grid"), linecolor: color("rule"), zeroline: false });

  const layout = (chart) => ({
    autosize: true,
    margin: { l: 48, r: 8, t: 8, b: data.length < DAY_MS ? 28 : 42 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("soft") },
    hovermode: "x unified",
    hoverlabel: {
      bgcolor: color("card"), bordercolor: color("rule"), font: { color: color("ink") },
    },
    dragmode: drags ? "zoom" : false,
    showlegend: chart.lines.length > 1,
    legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom" },
    xaxis: {
      ...axes(), type: "date", range: texts(view), hoverformat: "%H:%M:%S.%L", nticks: 6,
      tickformatstops: [
        { dtickrange: [null, 1000], value: "%H:%M:%S.%L" },
        { dtickrange: [1000, 60000], value: "%H:%M:%S" },
        { dtickrange: [60000, DAY_MS], value: data.length < DAY_MS ? "%H:%M" : "%H:%M\n%b %-d" },
        { dtickrange: [DAY_MS, null], value: "%b %-d" },
      ],
    },
    yaxis: {
      ...axes(), fixedrange: true, nticks: 5, tickformat: ",~r",
      ...(chart.top === null ? { rangemode: "tozero" } : { range: [0, chart.top] }),
    },
  });

  const config = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };

  const parsed = (at) => Date.parse(at.length > 10 ? `${at.replace(" ", "T")}Z` : at);

  // ---- drawing, one chart at a time so that the page answers --------------------------------

  const shown = new Map(); // what each chart that is drawn shows
  const visible = new Set();

  const draw = (element) => {
    if (shown.has(element) || element.closest("details:not([open])")) return;
    const chart = data.charts[element.dataset.chart];
    shown.set(element, view);
    Plotly.newPlot(element, traces(chart), layout(chart), config);
    element.on("plotly_relayout", (change) => {
      const range = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (range[0] !== undefined) show(range.map(parsed));
    });
    element.on("plotly_doubleclick", () => show(whole));
  };

  const refresh = (element) => {
    if (!shown.has(element)) draw(element);
    else if (shown.get(element) !== view) {
      shown.set(element, view);
      Plotly.relayout(element, { "xaxis.range": texts(view) });
    }
  };

  const drawRest = () => {
    const next = charts.find((one) => !shown.has(one) && !one.closest("details:not([open])"));
    if (next === undefined) {
      document.documentElement.dataset.drawn = shown.size;
      return;
    }
    draw(next);
    setTimeout(drawRest, 0);
  };

  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) visible.delete(entry.target);
    else {
      visible.add(entry.target);
      refresh(entry.target);
    }
  }), { rootMargin: "300px" });

  // ---- the stretch of time that all of them show --------------------------------------------

  const clock = (at, precise) => new Date(at).toISOString().slice(11, precise ? 23 : 19);

  const tell = () => {
    const place = document.getElementById("stretch");
    const precise = view[1] - view[0] < 10000;
    if (place) place.textContent = `${clock(view[0], precise)} – ${clock(view[1], precise)}`;
  };

  function show([from, to]) {
    const length = Math.max(SHORTEST_MS, Math.min(to - from, data.length));
    const begin = Math.min(Math.max(from, whole[0]), whole[1] - length);
    if (begin === view[0] && begin + length === view[1]) return;
    view = length >= data.length ? whole : [begin, begin + length];
    tell();
    visible.forEach(refresh);
  }

  const move = (by, factor) => {
    const middle = (view[0] + view[1]) / 2 + by * (view[1] - view[0]);
    const half = (view[1] - view[0]) * factor / 2;
    show([middle - half, middle + half]);
  };

  const actions = {
    earlier: () => move(-0.5, 1),
    later: () => move(0.5, 1),
    closer: () => move(0, 0.5),
    wider: () => move(0, 2),
    whole: () => show(whole),
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button === null) return;
    if (button.dataset.do) actions[button.dataset.do]();
    if (button.dataset.from) {
      const [from, to] = [Number(button.dataset.from), Number(button.dataset.to)];
      const margin = (to - from) * 0.1;
      show([Math.max(whole[0], data.start + from - margin), Math.min(whole[1], data.start + to + margin)]);
      document.querySelector(".charts").scrollIntoView({ behavior: "smooth" });
    }
  });

  // ---- other colors, paper ------------------------------------------------------------------

  const redraw = (width) => shown.forEach((_, element) => {
    const chart = data.charts[element.dataset.chart];
    const size = width === undefined ? {} : { autosize: false, width, height: 210 };
    shown.set(element, view);
    Plotly.react(element, traces(chart), { ...layout(chart), ...size }, config);
  });

  dark.addEventListener("change", () => redraw());
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printed");
    charts.forEach(draw);
    redraw(PRINTED_WIDTH);
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printed");
    redraw();
  });

  document.querySelectorAll("details").forEach((details) =>
    details.addEventListener("toggle", drawRest));
  charts.forEach((element) => watcher.observe(element));
  tell();
  drawRest();
})();
