// What an agent answered Grafana, drawn by Grafana's own component.

import { createTheme, FieldType, toDataFrame } from "@grafana/data";
import { FlameGraph } from "@grafana/flamegraph";
import { createRoot } from "react-dom/client";

import answer from "./answer.json";

const { names, levels, total } = answer.flamegraph;

// Bars of a level: what lies between it and the one before, its width, what it has of its own, its name. A width
// is text where it may not fit a number.
function bars(level, depth) {
  const found = [];
  let at = 0;
  for (let bar = 0; bar < level.values.length; bar += 4) {
    const [gap, value, self, name] = level.values.slice(bar, bar + 4).map(Number);
    at += gap;
    found.push({ start: at, level: depth, value, self, label: names[name] });
    at += value;
  }
  return found;
}

// From the root down and from left to right, which is how the component wants its rows.
const rows = levels.flatMap(bars).sort((one, other) => one.start - other.start || one.level - other.level);
const column = (name, type, config = {}) => ({ name, type, config, values: rows.map((row) => row[name]) });
const data = toDataFrame({
  fields: [
    column("level", FieldType.number),
    column("value", FieldType.number, { unit: "ns" }),
    column("self", FieldType.number, { unit: "ns" }),
    column("label", FieldType.string),
  ],
});
document.title = `${rows.length} bars, ${total} ns`;
createRoot(document.getElementById("root")).render(<FlameGraph data={data} getTheme={() => createTheme()} />);

// How many colours the drawing has, for whoever reads the page and not the picture.
setTimeout(() => {
  const canvas = document.querySelector("canvas");
  const { data: pixels } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  document.body.dataset.colours = String(new Set(new Uint32Array(pixels.buffer)).size);
}, 5000);
