// Asks an agent what Grafana asks it, by a client of Connect that is not ours, in both encodings.
// Prints what it saw as JSON; ends with an error at the first thing that is not as promised.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";

import { QuerierService } from "./querier.mjs";

const [baseUrl, from, to, graphFile] = process.argv.slice(2);
const range = { start: BigInt(from), end: BigInt(to) };
const profileTypeID = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
const selection = { profileTypeID, labelSelector: '{service_name=~".+"}', ...range };

// What the bars have of their own, all of it; each as wide as what is its own and below it.
function owned({ levels }, sides = 1) {
  let all = 0n;
  for (const { values } of levels) {
    for (let bar = 0; bar < values.length; bar += 3 * sides + 1) {
      for (let side = 0; side < sides; side += 1) all += values[bar + 3 * side + 2];
    }
  }
  return all;
}

async function refused(call, code, words) {
  try {
    await call;
  } catch (error) {
    assert(error instanceof ConnectError);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return;
  }
  assert.fail(`not refused: ${words}`);
}

async function ask(useBinaryFormat) {
  const transport = createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat });
  const client = createClient(QuerierService, transport);

  // The health check of Grafana's settings page.
  const { profileTypes } = await client.profileTypes({ start: 1000n, end: 4000n });
  assert(profileTypes.some((type) => type.ID === profileTypeID && type.sampleUnit === "nanoseconds"));
  assert(profileTypes.some((type) => type.ID === "memory:inuse_space:bytes:space:bytes"));

  const matchers = [`{__profile_type__="${profileTypeID}"}`];
  const { names } = await client.labelNames({ matchers, ...range });
  for (const name of ["service_name", "http_route", "http_request_method", "thread"]) assert(names.includes(name), names);
  const routes = (await client.labelValues({ name: "http_route", matchers, ...range })).names;
  const route = routes.find((route) => route.startsWith("/v1/"));
  assert(route, routes);

  const { flamegraph } = await client.selectMergeStacktraces(selection);
  assert.equal(flamegraph.names[0], "total");
  assert.equal(owned(flamegraph), flamegraph.total);
  const profile = await client.selectMergeProfile(selection);
  const sum = profile.sample.reduce((sum, sample) => sum + sample.value[0], 0n);
  assert.equal(sum, flamegraph.total, "pprof and bars of the same seconds");
  assert(flamegraph.names.some((name) => name.includes("streamgate")));

  let told = 0n;
  for (const [operator, value] of [["=", route], ["!=", route]]) {
    const labelSelector = `{http_route${operator}"${value}"}`;
    told += (await client.selectMergeStacktraces({ ...selection, labelSelector })).flamegraph?.total ?? 0n;
  }
  assert.equal(told, flamegraph.total, "one route and all others are all");

  const step = 5;
  const { series } = await client.selectSeries({ ...selection, groupBy: ["http_route"], step });
  const points = series.flatMap((one) => one.points);
  const cores = points.reduce((sum, point) => sum + point.value, 0) / 1e9;
  assert(points.every((point) => (point.timestamp - range.start) % BigInt(step * 1000) === 0n));
  assert(cores > 0 && cores <= Number(flamegraph.total) / 1e9 + 1e-6, cores);

  const diff = (await client.diff({ left: selection, right: selection })).flamegraph;
  assert.equal(diff.leftTicks, flamegraph.total);
  assert.equal(diff.rightTicks, flamegraph.total);
  assert.equal(owned(diff, 2), 2n * flamegraph.total);

  const memory = { profileTypeID: "memory:inuse_space:bytes:space:bytes", labelSelector: "{}", start: range.start, end: 0n };
  assert((await client.selectMergeStacktraces(memory)).flamegraph.total > 0n);
  const past = { start: 1000n, end: 4000n };
  assert.equal((await client.selectMergeStacktraces({ ...selection, ...past })).flamegraph, undefined);
  const spans = { profileTypeID, labelSelector: "{}", spanSelector: ["00f067aa0ba902b7"], ...range };
  assert.equal((await client.selectMergeSpanProfile(spans)).flamegraph, undefined);

  const select = (more) => client.selectMergeStacktraces({ ...selection, ...more });
  await refused(select({ labelSelector: "{a=~" }), Code.InvalidArgument, /label_selector must be /);
  await refused(select({ labelSelector: "x".repeat(70_000) }), Code.ResourceExhausted, /body over 65536 bytes/);
  await refused(select({ labelSelector: '{a=~"(.{999}){999}"}' }), Code.InvalidArgument, /well-formed and small/);
  await refused(select({ profileTypeID: "goroutine" }), Code.InvalidArgument, /profile_typeID must be .*goroutine/);
  await refused(client.selectHeatmap(selection), Code.Unimplemented, /no such method/);
  return { flamegraph, routes: routes.length, points: points.length };
}

const [proto, json] = [await ask(true), await ask(false)];
assert.deepEqual(json.flamegraph, proto.flamegraph, "both encodings say the same");
const { names, levels, total } = proto.flamegraph;
const graph = { names, levels: levels.map((level) => level.values.map(Number)), total: Number(total) };
if (graphFile) writeFileSync(graphFile, JSON.stringify(graph));
const bars = graph.levels.reduce((sum, level) => sum + level.length / 4, 0);
console.log(JSON.stringify({ bars, levels: levels.length, milliseconds: Number(total) / 1e6, routes: proto.routes, points: proto.points }));
