//! A browser of a few lines for the demonstration: one request per connection, what a form sends, the answer as text.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer of ours has a few KiB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Longer than any page of ours takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// What came back.
pub(super) struct Page {
    pub(super) status: u16,
    /// Where a redirection leads; empty if it is none.
    pub(super) location: String,
    pub(super) body: String,
}

pub(super) async fn get(server: SocketAddr, path: &str) -> Result<Page, String> {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")).await
}

pub(super) async fn post(server: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Result<Page, String> {
    let body = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {server}\r\nOrigin: http://{server}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    ask(server, &format!("{head}{body}")).await
}

async fn ask(server: SocketAddr, request: &str) -> Result<Page, String> {
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await.map_err(|_| "the web page does not answer".to_owned())?;
    let answer = answer.map_err(|error| format!("the web page cannot be reached: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the web page's answer is cut off")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no HTTP answer")?;
    let location = head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| *name == "location"));
    let location = location.map(|(_, value)| value.to_owned()).unwrap_or_default();
    Ok(Page { status, location, body: body.to_owned() })
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The value of a hidden field of a form.
pub(super) fn field(page: &str, name: &str) -> Result<String, String> {
    let begin = format!("name=\"{name}\" value=\"");
    let value = page.split_once(&begin).and_then(|(_, rest)| rest.split_once('"'));
    value.map(|(value, _)| value.to_owned()).ok_or_else(|| format!("the page has no field {name}"))
}
