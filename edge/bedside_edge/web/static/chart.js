// Draws the figures of data-chart with uPlot; the table beside it holds the same figures.
const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(name).trim();
const axis = (more) => ({ stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "13px system-ui, sans-serif", ...more });
const LOW = 0.25, HEIGHT = 260;

const bars = ({ labels, values }) => ({
  options: {
    scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: [0, Math.max(LOW, ...values) * 1.05] } },
    axes: [axis({ splits: () => labels.map((_, place) => place), values: () => labels, grid: { show: false }, size: 70 }), axis({ size: 60 })],
    series: [{}, { stroke: colour("--accent"), fill: colour("--accent"), width: 0, paths: window.uPlot.paths.bars({ size: [0.5, 60] }), points: { show: false } }],
  },
  data: [labels.map((_, place) => place), values],
});

const line = ({ x, share, low, high }) => {
  const edge = { stroke: "transparent", points: { show: false } };
  return {
    options: {
      scales: { x: { time: true, range: (_, from, to) => [from - 302400, to + 302400] }, y: { range: [0, 1] } },
      axes: [axis({}), axis({ size: 60 })],
      series: [{}, edge, edge, { stroke: colour("--accent"), width: 2, points: { show: true, size: 8, fill: colour("--accent") } }],
      bands: [{ series: [1, 2], fill: colour("--raised") }],
    },
    data: [x, high, low, share],
  };
};

// what an epoch has spent: steps, with the cap as a line above
const growth = ({ x, y, cap }) => ({
  options: {
    scales: { x: { time: true, range: (_, from, to) => [from - 3600, to + 3600] }, y: { range: [0, Math.max(cap, ...y) * 1.05] } },
    axes: [axis({}), axis({ size: 60 })],
    series: [{}, { stroke: colour("--accent"), width: 2, paths: window.uPlot.paths.stepped({ align: 1 }), points: { show: true, size: 8, fill: colour("--accent") } }, { stroke: colour("--quiet"), dash: [6, 4], points: { show: false } }],
  },
  data: [x, y, x.map(() => cap)],
});

for (const place of document.querySelectorAll("[data-chart]")) {
  const figures = JSON.parse(place.dataset.chart);
  const { options, data } = { bars, line, growth }[figures.kind](figures);
  const width = () => Math.max(200, place.clientWidth);
  const chart = new window.uPlot({ width: width(), height: HEIGHT, legend: { show: false }, cursor: { show: false }, ...options }, data, place);
  addEventListener("resize", () => chart.setSize({ width: width(), height: HEIGHT }));
  place.dataset.drawn = "";
}
