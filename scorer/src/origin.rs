//! Where a request came from, as the log tells it.

/// The header of the W3C's trace context, level 1.
pub const TRACEPARENT: &str = "traceparent";

/// Which request this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Name of the request.
    pub request_id: String,
    /// What carried it: `http`, or the kind of a Lambda event.
    pub carrier: &'static str,
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
}

/// A place in a distributed trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The caller's span, 16 hexadecimal digits.
    pub parent_id: String,
}

impl Origin {
    /// A request that nothing more is known of.
    pub fn new(request_id: String, trace: Option<Trace>) -> Self {
        Self {
            request_id,
            carrier: "",
            trace,
        }
    }

    /// The same, carried by `carrier`.
    #[must_use]
    pub fn by(self, carrier: &'static str) -> Self {
        Self { carrier, ..self }
    }

    /// The same as a part of the caller's trace, where its header names one.
    #[must_use]
    pub fn following(self, traceparent: Option<&str>) -> Self {
        let trace = traceparent.and_then(Trace::parse).or(self.trace);
        Self { trace, ..self }
    }
}

impl Trace {
    /// Reads a `traceparent` header: `VERSION-TRACE-PARENT-FLAGS`, and whatever later versions put behind them.
    /// `None` for what is not one, which is then ignored, as the recommendation asks.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace_id = hexadecimal(parts.next()?, 32)?;
        let parent_id = hexadecimal(parts.next()?, 16)?;
        hexadecimal(parts.next()?, 2)?;
        let zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        let too_long = version == "00" && parts.next().is_some();
        if version == "ff" || too_long || zero(trace_id) || zero(parent_id) {
            return None;
        }
        Some(Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
        })
    }

    /// Reads what Lambda tells of AWS X-Ray, `Root=1-TIME-REST;Parent=SPAN;Sampled=1`; the trace of the W3C is
    /// `TIME` and `REST` together.
    pub fn of_xray(header: Option<&str>) -> Option<Self> {
        let member = |name: &str| {
            header?
                .split(';')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let mut root = member("Root")?.split('-').skip(1);
        let trace_id = format!("{}{}", root.next()?, root.next()?);
        Some(Self {
            trace_id: hexadecimal(&trace_id, 32)?.to_owned(),
            parent_id: hexadecimal(member("Parent")?, 16)?.to_owned(),
        })
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<&str> {
    let small = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(small)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_the_recommendation_are_read() {
        let trace = Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("a trace");
        assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent_id, "00f067aa0ba902b7");
        assert_eq!(
            Trace::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"),
            Some(trace)
        );
        for header in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Trace::parse(header), None, "{header}");
        }
    }

    #[test]
    fn the_trace_of_x_ray_is_translated() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let trace = Trace::of_xray(Some(header)).expect("a trace");
        assert_eq!(trace.trace_id, "5759e988bd862e3fe1be46a994272793");
        assert_eq!(trace.parent_id, "53995c3f42cd8ad8");
        for header in [None, Some(""), Some("Root=1-5759e988"), Some("Parent=53995c3f42cd8ad8")] {
            assert_eq!(Trace::of_xray(header), None, "{header:?}");
        }
    }
}
