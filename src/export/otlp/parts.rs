//! Metrics in as many messages as their bytes need.

use std::iter;

use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;

/// Tag and length before each metric of a message.
const HEAD_BYTES: usize = 8;

/// Pieces of families as the metrics of messages of at most so many bytes; a piece that has more is alone.
/// In a message each family stands once.
pub(super) fn parts(
    pieces: impl Iterator<Item = Metric>,
    limit: usize,
) -> impl Iterator<Item = Vec<Metric>> {
    let bytes = |piece: &Metric| piece.encoded_len() + HEAD_BYTES;
    let mut pieces = pieces.peekable();
    iter::from_fn(move || {
        let first = pieces.next()?;
        let mut left = limit.saturating_sub(bytes(&first));
        let mut metrics = vec![first];
        while let Some(piece) = pieces.next_if(|piece| bytes(piece) <= left) {
            left -= bytes(&piece);
            let before = metrics.last_mut().filter(|last| last.name == piece.name);
            match before {
                Some(family) => join(family.data.as_mut(), piece.data),
                None => metrics.push(piece),
            }
        }
        Some(metrics)
    })
}

/// Adds the points of one piece of a family to those of another.
fn join(before: Option<&mut Data>, after: Option<Data>) {
    match (before, after) {
        (Some(Data::Gauge(all)), Some(Data::Gauge(more))) => {
            all.data_points.extend(more.data_points);
        }
        (Some(Data::Sum(all)), Some(Data::Sum(more))) => all.data_points.extend(more.data_points),
        (Some(Data::Histogram(all)), Some(Data::Histogram(more))) => {
            all.data_points.extend(more.data_points);
        }
        (Some(Data::ExponentialHistogram(all)), Some(Data::ExponentialHistogram(more))) => {
            all.data_points.extend(more.data_points);
        }
        (Some(Data::Summary(all)), Some(Data::Summary(more))) => {
            all.data_points.extend(more.data_points);
        }
        // Pieces of one family are of one kind.
        _ => {}
    }
}
