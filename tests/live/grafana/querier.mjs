// The part of Pyroscope's querier.v1 and types.v1 that is asked for here, by field numbers alone.

import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

const SCALARS = { string: Type.STRING, int64: Type.INT64, double: Type.DOUBLE };

// `name:type`, with a star for a list, by number.
const MESSAGES = {
  ProfileTypesRequest: { 1: "start:int64", 2: "end:int64" },
  ProfileTypesResponse: { 1: "profile_types:*ProfileType" },
  ProfileType: { 1: "ID:string", 2: "name:string", 4: "sample_type:string", 5: "sample_unit:string" },
  LabelNamesRequest: { 1: "matchers:*string", 2: "start:int64", 3: "end:int64" },
  LabelValuesRequest: { 1: "name:string", 2: "matchers:*string", 3: "start:int64", 4: "end:int64" },
  Names: { 1: "names:*string" },
  Selection: {
    1: "profile_typeID:string",
    2: "label_selector:string",
    3: "start:int64",
    4: "end:int64",
    5: "max_nodes:int64",
    11: "span_selector:*string",
  },
  SpanSelection: {
    1: "profile_typeID:string",
    2: "label_selector:string",
    3: "span_selector:*string",
    4: "start:int64",
    5: "end:int64",
  },
  Graph: { 1: "flamegraph:FlameGraph" },
  FlameGraph: { 1: "names:*string", 2: "levels:*Level", 3: "total:int64", 4: "max_self:int64" },
  Level: { 1: "values:*int64" },
  Sides: { 1: "left:Selection", 2: "right:Selection" },
  Difference: { 1: "flamegraph:FlameGraphDiff" },
  FlameGraphDiff: {
    1: "names:*string",
    2: "levels:*Level",
    3: "total:int64",
    5: "leftTicks:int64",
    6: "rightTicks:int64",
  },
  SeriesSelection: {
    1: "profile_typeID:string",
    2: "label_selector:string",
    3: "start:int64",
    4: "end:int64",
    5: "group_by:*string",
    6: "step:double",
  },
  SeriesList: { 1: "series:*Series" },
  Series: { 1: "labels:*LabelPair", 2: "points:*Point" },
  LabelPair: { 1: "name:string", 2: "value:string" },
  Point: { 1: "value:double", 2: "timestamp:int64" },
  Profile: { 2: "sample:*Sample", 6: "string_table:*string", 10: "duration_nanos:int64" },
  Sample: { 2: "value:*int64" },
};

const METHODS = {
  ProfileTypes: ["ProfileTypesRequest", "ProfileTypesResponse"],
  LabelNames: ["LabelNamesRequest", "Names"],
  LabelValues: ["LabelValuesRequest", "Names"],
  SelectMergeStacktraces: ["Selection", "Graph"],
  SelectMergeSpanProfile: ["SpanSelection", "Graph"],
  SelectSeries: ["SeriesSelection", "SeriesList"],
  SelectMergeProfile: ["Selection", "Profile"],
  Diff: ["Sides", "Difference"],
  // Not one of the agent's.
  SelectHeatmap: ["SeriesSelection", "SeriesList"],
};

function field([number, text]) {
  const [name, kind] = text.split(":");
  const type = kind.replace("*", "");
  return {
    name,
    jsonName: name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()),
    number: Number(number),
    label: kind.startsWith("*") ? Label.REPEATED : Label.OPTIONAL,
    ...(SCALARS[type] ? { type: SCALARS[type] } : { type: Type.MESSAGE, typeName: `.querier.v1.${type}` }),
  };
}

const file = create(FileDescriptorProtoSchema, {
  name: "querier.proto",
  package: "querier.v1",
  syntax: "proto3",
  messageType: Object.entries(MESSAGES).map(([name, fields]) => ({
    name,
    field: Object.entries(fields).map(field),
  })),
  service: [
    {
      name: "QuerierService",
      method: Object.entries(METHODS).map(([name, [input, output]]) => ({
        name,
        inputType: `.querier.v1.${input}`,
        outputType: `.querier.v1.${output}`,
      })),
    },
  ],
});

export const QuerierService = createFileRegistry(file, () => undefined).getService("querier.v1.QuerierService");
