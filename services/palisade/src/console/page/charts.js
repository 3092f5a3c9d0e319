// Area charts as inline SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 32;

/** Creates an empty chart. Its values are in the cells beside it, so readers skip it. */
export function createChart() {
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  chart.classList.add("chart");
  for (const name of ["all", "errors"]) {
    const path = document.createElementNS(SVG, "path");
    path.classList.add(name);
    chart.append(path);
  }
  return chart;
}

/** Draws two series of equal length, the newest value at the right edge. */
export function drawChart(chart, all, errors) {
  const top = Math.max(1, ...all);
  const [allPath, errorPath] = chart.children;
  allPath.setAttribute("d", area(all, top));
  errorPath.setAttribute("d", errors.some((value) => value > 0) ? area(errors, top) : "");
}

function area(values, top) {
  if (values.length === 0) return "";
  const begin = WIDTH - values.length;
  const points = values.map((value, index) => `${begin + index + 1} ${(HEIGHT - (value / top) * (HEIGHT - 2)).toFixed(1)}`);
  return `M${begin + 1} ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`;
}
