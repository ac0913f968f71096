import type { AnnotationQuery, Dashboard, DataQuery, Panel } from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A type as JSON has it: a member of an enumeration is its text. */
type Json<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T;

/** The schema leaves a query to its data source. */
interface Prometheus extends DataQuery {
  expr: string;
}

/** What Prometheus' annotations have beside the schema's. */
interface Annotation extends AnnotationQuery<Prometheus> {
  expr: string;
  titleFormat: string;
  textFormat: string;
  step: string;
}

export type Board = Json<Omit<Dashboard, "annotations"> & { annotations: { list: Annotation[] } }>;

/** The schema's own panel leaves its options open; of those that are not there Grafana takes the default. */
type With<Options, Fields = Record<string, unknown>> = Json<
  Omit<Panel<Options, Fields>, "options"> & { options: Partial<Options> }
>;

/** Panels by their type. */
export interface Panels {
  heatmap: With<heatmap.Options, heatmap.FieldConfig>;
  stat: With<stat.Options>;
  table: With<table.Options, table.FieldConfig>;
  timeseries: With<timeseries.Options, timeseries.FieldConfig>;
}
