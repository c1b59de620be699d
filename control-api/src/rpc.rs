//! The envelope: JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), without batches and notifications.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ApiError, Code};

/// The value of every `jsonrpc` key.
pub const VERSION: &str = "2.0";

/// Most values (elements of arrays, members of objects) in a request. A megabyte of `0,0,0,…` would be 16 when read.
pub const MAX_VALUES: usize = 10_000;

/// How many values a line of JSON has at least, counted without reading it: commas and openings outside of texts.
fn values(line: &[u8]) -> usize {
    let (mut count, mut text, mut escaped) = (0, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' | b'[' | b'{' if !text => count += 1,
            _ => {}
        }
    }
    count
}

/// A request line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// "2.0".
    pub jsonrpc: String,
    /// Number or text, given back in the reply.
    pub id: Value,
    /// See [`crate::method`].
    pub method: String,
    /// An object; absent: all defaults.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

impl Request {
    /// A request.
    #[must_use]
    pub fn new(id: u64, method: &str, params: Value) -> Self {
        Self { jsonrpc: VERSION.into(), id: id.into(), method: method.into(), params }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Not JSON, or no request; the id is given where one could be read.
    pub fn parse(line: &[u8]) -> Result<Self, (Value, ApiError)> {
        let text = std::str::from_utf8(line)
            .map_err(|error| (Value::Null, ApiError::new(Code::Parse, format!("request is not UTF-8: {error}"))))?;
        if values(line) > MAX_VALUES {
            let message = format!("request has more than {MAX_VALUES} values");
            return Err((Value::Null, ApiError::new(Code::InvalidRequest, message)));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| (Value::Null, ApiError::new(Code::Parse, format!("request is not JSON: {error}"))))?;
        let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned().unwrap_or(Value::Null);
        let refuse = |message: String| (id.clone(), ApiError::new(Code::InvalidRequest, message));
        if value.is_array() {
            return Err(refuse("batches are not offered; hint: one object a line".into()));
        }
        let request: Self =
            serde_json::from_value(value).map_err(|error| refuse(format!("request is no JSON-RPC object: {error}")))?;
        if request.jsonrpc != VERSION {
            return Err(refuse(format!("jsonrpc is \"{}\", this is \"{VERSION}\"", request.jsonrpc)));
        }
        if id.is_null() {
            return Err(refuse("id is missing, or neither number nor text".into()));
        }
        Ok(request)
    }

    /// The parameters as their type.
    ///
    /// # Errors
    /// A key is unknown, missing or of another type.
    pub fn params<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        let object = match &self.params {
            Value::Null => Value::Object(serde_json::Map::new()),
            given => given.clone(),
        };
        serde_json::from_value(object)
            .map_err(|error| ApiError::new(Code::InvalidParams, format!("{}: {error}", self.method)))
    }
}

/// A reply line: `result` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// "2.0".
    pub jsonrpc: String,
    /// The request's.
    pub id: Value,
    /// [`crate::API_VERSION`], in the first reply on a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<u32>,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
}

impl Response {
    /// A reply to the request `id`.
    #[must_use]
    pub fn new(id: Value, outcome: Result<Value, ApiError>) -> Self {
        let (result, error) = match outcome {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error.into())),
        };
        Self { jsonrpc: VERSION.into(), id, api_version: None, result, error }
    }

    /// The answer or the refusal.
    ///
    /// # Errors
    /// The refusal.
    pub fn outcome(self) -> Result<Value, ApiError> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self.result.unwrap_or(Value::Null)),
        }
    }

    /// As a line, newline included.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        // Strings, numbers and maps with text keys: nothing JSON cannot say.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// JSON-RPC's error object; what is ours stands in `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireError {
    /// [`Code::number`].
    pub code: i32,
    /// What, value, limit.
    pub message: String,
    /// The rest.
    pub data: Option<WireData>,
}

/// What [`ApiError`] says beyond JSON-RPC.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WireData {
    /// `LB-E012`, or the word of [`Code`].
    pub code: String,
    /// The key it is about, `service[0].rs[1].weight`.
    #[serde(default)]
    pub path: Option<String>,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
    /// Everything that is wrong, when it is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<ApiError>,
    /// The same for people, with lines and carets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

impl From<ApiError> for WireError {
    fn from(error: ApiError) -> Self {
        let ApiError { kind, code, message, path, hint, all, report } = error;
        Self { code: kind.number(), message, data: Some(WireData { code, path, hint, all, report }) }
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        let kind = Code::of(error.code);
        let WireData { code, path, hint, all, report } = error.data.unwrap_or_default();
        let code = if code.is_empty() { kind.word().to_owned() } else { code };
        Self { kind, code, message: error.message, path, hint, all, report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused_with_its_id() {
        let code = |line: &[u8]| Request::parse(line).map_err(|(id, error)| (id, error.kind)).unwrap_err();
        assert_eq!(code(b"\xff"), (Value::Null, Code::Parse));
        assert_eq!(code(b"{"), (Value::Null, Code::Parse));
        assert_eq!(code(b"[]"), (Value::Null, Code::InvalidRequest));
        assert_eq!(code(br#"{"jsonrpc":"1.0","id":7,"method":"x"}"#), (7.into(), Code::InvalidRequest));
        assert_eq!(code(br#"{"jsonrpc":"2.0","method":"x"}"#), (Value::Null, Code::InvalidRequest));
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":7}"#), (7.into(), Code::InvalidRequest));
    }

    #[test]
    fn many_values_are_refused_before_they_are_read_and_texts_may_be_long() {
        let request = |params: String| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}"#);
        let zeros = request(format!("[{}0]", "0,".repeat(MAX_VALUES)));
        let (_, error) = Request::parse(zeros.as_bytes()).unwrap_err();
        assert!(error.message.contains("10000 values"), "{error}");
        let text = serde_json::to_string(&"[1,\"\\,{".repeat(MAX_VALUES)).unwrap();
        assert!(Request::parse(request(format!("{{\"text\":{text}}}")).as_bytes()).is_ok());
        let deep = request("[".repeat(500) + &"]".repeat(500));
        assert_eq!(Request::parse(deep.as_bytes()).unwrap_err().1.kind, Code::Parse, "no stack overflow");
        assert_eq!(Request::parse(request("1e999".into()).as_bytes()).unwrap_err().1.kind, Code::Parse);
    }

    #[test]
    fn errors_keep_everything_on_the_wire() {
        let error = ApiError::new(Code::Refused, "weight is 70000, at most 65535")
            .code("LB-E013")
            .path("service[0].rs[1].weight")
            .hint("scale the weights");
        let reply = Response::new(1.into(), Err(error.clone()));
        let back: Response = serde_json::from_slice(&reply.line()).unwrap();
        assert_eq!(back.outcome(), Err(error));
    }

    #[test]
    fn unknown_params_are_said() {
        let request =
            Request::parse(br#"{"jsonrpc":"2.0","id":1,"method":"rs.list","params":{"servcie":"a"}}"#).unwrap();
        let error = request.params::<crate::params::RsList>().unwrap_err();
        assert_eq!(error.kind, Code::InvalidParams);
        assert!(error.message.contains("servcie"), "{error}");
    }
}
