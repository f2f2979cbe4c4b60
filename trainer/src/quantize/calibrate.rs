//! What a float network computes for some images: the range of each value, and the mean of each of its channels.
//!
//! The network measures itself: it gets pooling layers over each value, and their results side by side become its
//! vector. So images are run as always, and no map leaves the runtime.

use std::collections::HashMap;

use super::plan::{Plan, Value};
use super::{QuantizeError, Samples, Workbench};
use crate::onnx::proto::{DimensionValue, GraphProto, ModelProto};
use crate::onnx::{Attribute, add_node, float_value, prune};

/// The output that holds the measurements.
const OUTPUT: &str = "quantize.observed";

/// What was seen of each value, by name.
pub(super) type Observed = HashMap<String, Statistics>;

/// What was seen of one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statistics {
    /// The smallest.
    pub low: f32,
    /// The largest.
    pub high: f32,
    /// Mean of each channel over images and pixels.
    pub means: Vec<f64>,
}

/// What `network` computes for the calibration images, for every value of `plan`.
pub(super) fn observe(
    network: &ModelProto,
    plan: &Plan,
    samples: &Samples,
    workbench: &Workbench,
) -> Result<Observed, QuantizeError> {
    let mut model = network.clone();
    let graph = model.graph.get_or_insert_default();
    measure(graph, &plan.values);
    let rows = workbench.vectors(&model, &samples.calibration)?;
    let mut observed = Observed::new();
    let mut begin = 0;
    for Value { name, channels } in &plan.values {
        let part = |index: usize| begin + index * channels..begin + (index + 1) * channels;
        let mut seen = Statistics {
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
            means: vec![0.0; *channels],
        };
        for row in &rows {
            let parts = [0, 1, 2].map(|index| row.get(part(index)));
            let [Some(highs), Some(negative_lows), Some(means)] = parts else {
                let reason = format!("{name} has another number of channels than its convolution says");
                return Err(QuantizeError::Unsuitable(reason));
            };
            seen.high = highs.iter().copied().fold(seen.high, f32::max);
            seen.low = negative_lows.iter().map(|value| -value).fold(seen.low, f32::min);
            for (sum, mean) in seen.means.iter_mut().zip(means) {
                *sum += f64::from(*mean) / rows.len() as f64;
            }
        }
        if *name == plan.image {
            (seen.low, seen.high) = samples.range;
        }
        observed.insert(name.clone(), seen);
        begin += 3 * channels;
    }
    Ok(observed)
}

/// Replaces the outputs by the maximum, the negative minimum and the mean of each channel of each value.
fn measure(graph: &mut GraphProto, values: &[Value]) {
    let mut parts = Vec::with_capacity(3 * values.len());
    let mut total = 0;
    for Value { name, channels } in values {
        let own = |what: &str| format!("quantize.{what}.{name}");
        let (negative, low) = (own("negative"), own("low"));
        let negative = add_node(graph, &negative, "Neg", &[name], &[]);
        for (pooled, operator, value) in [
            (own("high"), "GlobalMaxPool", name),
            (low, "GlobalMaxPool", &negative),
            (own("mean"), "GlobalAveragePool", name),
        ] {
            let flat = format!("{pooled}.flat");
            let pooled = add_node(graph, &pooled, operator, &[value], &[]);
            let axis = [("axis", Attribute::Int(1))];
            parts.push(add_node(graph, &flat, "Flatten", &[&pooled], &axis));
        }
        total += 3 * channels;
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let output = add_node(graph, OUTPUT, "Concat", &parts, &[("axis", Attribute::Int(1))]);
    let rows = DimensionValue::named("N");
    graph.output = vec![float_value(&output, &[rows, DimensionValue::Fixed(total as i64)])];
    prune(graph);
}
