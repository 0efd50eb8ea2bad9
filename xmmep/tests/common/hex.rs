//! Commented hex: pairs of digits, spaces, and `#` up to the end of the line.

use std::fmt::Write;

/// The bytes of a commented hex text.
pub fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for pair in code.split_whitespace().flat_map(|word| word.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| format!("line {}: not ASCII", number + 1))?;
            let digits = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            let byte = digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten();
            bytes.push(byte.ok_or_else(|| format!("line {}: {pair:?} is no byte", number + 1))?);
        }
    }
    Ok(bytes)
}

/// The bytes as pairs of digits with spaces between.
pub fn pairs(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        let _ = write!(out, "{}{byte:02x}", if out.is_empty() { "" } else { " " });
    }
    out
}

/// Lines of sixteen bytes, the last one with `comment`.
pub fn lines(bytes: &[u8], comment: &str) -> String {
    let mut out = String::new();
    let rows: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(16).collect() };
    for (index, row) in rows.iter().enumerate() {
        let comment = if index == 0 { format!("# {comment}") } else { String::new() };
        let _ = writeln!(out, "{}", format!("{:<48}{comment}", pairs(row)).trim_end());
    }
    out
}
