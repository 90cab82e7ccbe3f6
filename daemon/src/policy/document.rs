//! What this version of the daemon understands of a policy document: the one place that parses one.

/// A document that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document;

/// The schema that is understood.
const SCHEMA: &str = "avalon.policy/1";

/// Reads a policy document.
///
/// # Errors
/// What is wrong with it, in words.
pub fn understand(document: &str) -> Result<Document, String> {
    let table: toml::Table = document.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    match table.get("schema").and_then(toml::Value::as_str) {
        Some(SCHEMA) => Ok(Document),
        Some(other) => Err(format!("`schema` is {other:?}, this version knows {SCHEMA:?}")),
        None => Err(format!("it does not begin with schema = {SCHEMA:?}")),
    }
}
