//! GBNF.
pub(super) fn to_lark(_text: &str) -> Result<String, String> {
    Err("not yet".into())
}
