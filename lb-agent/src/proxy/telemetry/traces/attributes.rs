//! Attributes as OTLP has them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

/// Bytes of a text, beyond which it is cut: what nobody reads should not cost a batch of spans. SDKs have
/// the same as `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
const LENGTH: usize = 8 << 10;

/// A text of no more than [`LENGTH`].
pub(super) fn cut(text: impl Into<String>) -> String {
    let mut text = text.into();
    text.truncate(text.floor_char_boundary(LENGTH));
    text
}

/// A list of attributes that grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, value: impl Into<String>) {
        self.add(key, Value::StringValue(cut(value)));
    }

    pub(super) fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.add(key, Value::IntValue(value.into()));
    }

    /// Beyond what the format can hold it is the most that it can.
    pub(super) fn size(&mut self, key: &str, value: u64) {
        self.number(key, i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn yes(&mut self, key: &str) {
        self.add(key, Value::BoolValue(true));
    }

    /// The value of a header, which the conventions have as a list.
    pub(super) fn header(&mut self, key: &str, value: impl Into<String>) {
        let value = AnyValue {
            value: Some(Value::StringValue(cut(value))),
        };
        let values = vec![value];
        self.add(key, Value::ArrayValue(ArrayValue { values }));
    }

    fn add(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }
}
