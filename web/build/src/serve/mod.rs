//! A static HTTP server on the loopback interface: folders and closures, byte ranges, a strict content security
//! policy, and for tests a second origin, a request log and faults.
//!
//! Every connection carries one request. That keeps the end of a body in the server's hands: a truncated response
//! announces its full length and closes the connection early, which HTTP libraries do not let one do.

mod content;
mod fault;
mod request;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use content::{Content, Route};
use fault::{Cors, Fault, Flaky};
use request::{Request, Span};

/// The content security policy of every response. A page that breaks it shows errors, and the tests fail.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
    worker-src 'self'; connect-src *; img-src 'self' blob: data:";

/// How to serve.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Port of the first origin; 0 takes a free one.
    pub port: u16,
    /// Also serves `/fault/...`, `/log`, `/origins` and a second origin, for tests.
    pub faults: bool,
}

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    routes: Vec<Route>,
    options: Options,
    origins: Vec<String>,
    log: Mutex<Vec<Arc<Logged>>>,
    flaky: Mutex<Flaky>,
    stopping: AtomicBool,
}

/// A request in the log.
#[derive(Debug, Serialize)]
struct Logged {
    method: String,
    /// With the prefixes of faults.
    path: String,
    /// The `Range` header.
    range: Option<String>,
    /// 1 or 2.
    origin: usize,
    status: u16,
    /// Bytes of the body that were written.
    bytes: AtomicU64,
}

impl Server {
    /// Starts to serve. The longest prefix of a path decides on the route.
    ///
    /// # Errors
    /// A port that is taken.
    pub fn start(routes: Vec<Route>, options: Options) -> io::Result<Self> {
        let mut routes = routes;
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix().len()));
        let mut listeners = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?];
        if options.faults {
            listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            routes,
            options,
            origins: addresses.iter().map(|address| format!("http://{address}/")).collect(),
            log: Mutex::default(),
            flaky: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let threads = (1..)
            .zip(listeners)
            .map(|(origin, listener)| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || accept(&listener, origin, &shared))
            })
            .collect();
        Ok(Self { shared, addresses, threads })
    }

    /// The first origin, with a slash at its end.
    pub fn url(&self) -> &str {
        &self.shared.origins[0]
    }

    /// The second origin: the same without permission for other origins, but for paths below `/cors/`. Only with
    /// [`Options::faults`].
    pub fn second_origin_url(&self) -> Option<&str> {
        self.shared.origins.get(1).map(String::as_str)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            let _ = TcpStream::connect(address); // wakes the thread that accepts
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, origin: usize, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A client that goes away in the middle is no error of the server.
            let _ = shared.answer(stream, origin);
        });
    }
}

/// A response without its body.
struct Head {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

impl Head {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn write(&self, stream: &mut TcpStream, cors: Cors) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let mut header = |name: &str, value: &str| text = format!("{text}{name}: {value}\r\n");
        for (name, value) in &self.headers {
            header(name, value);
        }
        header("Cache-Control", "no-store");
        header("Connection", "close");
        header("Content-Security-Policy", CONTENT_SECURITY_POLICY);
        header("X-Content-Type-Options", "nosniff");
        if cors != Cors::Refused {
            header("Access-Control-Allow-Origin", "*");
        }
        if cors == Cors::Allowed {
            header("Access-Control-Expose-Headers", "Accept-Ranges, Content-Range, ETag, Last-Modified");
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        302 => "Found",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// A body that is sent, and how.
struct Body<'a> {
    content: &'a mut dyn Content,
    span: Span,
    /// Bytes after which the connection is closed.
    cut: Option<u64>,
    corrupt: Option<u64>,
    kilobytes_per_second: Option<u64>,
}

impl Shared {
    fn answer(&self, mut stream: TcpStream, origin: usize) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let Some(request) = Request::read(&mut stream)? else { return Ok(()) };
        let same_origin = if origin == 1 { Cors::Allowed } else { Cors::Refused };
        if !self.options.faults {
            return self.send(&mut stream, &request, origin, &request.path, &Fault::default());
        }
        match request.path.as_str() {
            "/log" => {
                let body = self.log_since(request.query("since").and_then(|n| n.parse().ok()).unwrap_or(0));
                send_text(&mut stream, &request, Head::new(200), same_origin, "application/json", &body)?;
                return Ok(());
            }
            "/origins" => {
                let body = serde_json::to_string(&self.origins)?;
                send_text(&mut stream, &request, Head::new(200), same_origin, "application/json", &body)?;
                return Ok(());
            }
            _ => {}
        }
        match Fault::parse(&request.path) {
            Ok((fault, path)) => self.send(&mut stream, &request, origin, path, &fault),
            Err(message) => {
                self.log(&request, origin, 400);
                let cors = Cors::Allowed;
                send_text(&mut stream, &request, Head::new(400), cors, "text/plain", &message).map(|_| ())
            }
        }
    }

    /// Sends what is at `path`.
    fn send(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        origin: usize,
        path: &str,
        fault: &Fault,
    ) -> io::Result<()> {
        let cors = fault.cors;
        let text = |stream: &mut TcpStream, head: Head, text: &str| {
            let logged = self.log(request, origin, head.status);
            let sent = send_text(stream, request, head, cors, "text/plain; charset=utf-8", text)?;
            logged.bytes.store(sent, Ordering::Relaxed);
            Ok(())
        };
        if request.method == "OPTIONS" {
            self.log(request, origin, 204);
            let head = Head::new(204);
            let head = if cors == Cors::Refused {
                head
            } else {
                head.with("Access-Control-Allow-Headers", "*, Authorization")
                    .with("Access-Control-Allow-Methods", "GET, HEAD")
            };
            return head.write(stream, cors);
        }
        if request.method != "GET" && request.method != "HEAD" {
            return text(stream, Head::new(405).with("Allow", "GET, HEAD, OPTIONS"), "only GET and HEAD\n");
        }
        if let Some(status) = fault.status {
            return text(stream, Head::new(status), &format!("status {status}, as asked\n"));
        }
        if fault.redirect {
            let second = self.origins.last().map_or("/", String::as_str);
            return text(stream, Head::new(302).with("Location", format!("{second}cors{path}")), "there\n");
        }
        let found = self.routes.iter().find_map(|route| route.find(path));
        let Some((name, mut content)) = found else {
            return text(stream, Head::new(404), &format!("nothing at {path}\n"));
        };
        if !path.ends_with('/') && name.ends_with('/') {
            let to = format!("{}/", request.path);
            return text(stream, Head::new(308).with("Location", to), "a folder\n");
        }

        let (len, etag) = (content.len(), content.etag());
        let span = if fault.no_range { Ok(None) } else { request.span(len, &etag) };
        let Ok(span) = span else {
            let head = Head::new(416).with("Content-Range", format!("bytes */{len}"));
            return text(stream, head, "no such range\n");
        };
        let mut head = Head::new(if span.is_some() { 206 } else { 200 });
        if let Some(span) = &span {
            head = head.with("Content-Range", format!("bytes {}-{}/{len}", span.start, span.end - 1));
        }
        if !fault.no_range {
            head = head.with("Accept-Ranges", "bytes");
        }
        let span = span.unwrap_or(0..len);
        let sent = span.end - span.start;
        head = head
            .with("Content-Type", media_type(&name))
            .with("Content-Length", sent.to_string())
            .with("ETag", etag);
        let logged = self.log(request, origin, head.status);
        head.write(stream, cors)?;
        if request.method == "HEAD" {
            return Ok(());
        }
        if fault.hang {
            return self.hang(stream);
        }
        let again = fault.flaky.as_ref().is_some_and(|(times, id)| self.flaky().fails(id, *times));
        let cut = fault.truncate.or(again.then_some(sent / 2));
        let body = Body {
            content: content.as_mut(),
            span,
            cut,
            corrupt: fault.corrupt,
            kilobytes_per_second: fault.kilobytes_per_second,
        };
        self.send_body(stream, body, &logged.bytes)
    }

    /// Writes a body; returns without an error where it is cut.
    fn send_body(&self, stream: &mut TcpStream, body: Body<'_>, written: &AtomicU64) -> io::Result<()> {
        let Body { content, span, cut, corrupt, kilobytes_per_second } = body;
        let end = cut.map_or(span.end, |cut| span.end.min(span.start.saturating_add(cut)));
        // A slow body comes in 20 pieces a second.
        let piece = kilobytes_per_second.map_or(256 << 10, |kb| (kb * 1000 / 20).max(1));
        let (mut at, begun) = (span.start, Instant::now());
        while at < end && !self.stopping.load(Ordering::Relaxed) {
            let next = end.min(at + piece);
            let mut bytes = content.read(at..next)?;
            if let Some(offset) = corrupt.filter(|offset| (at..next).contains(offset)) {
                bytes[(offset - at) as usize] ^= 1;
            }
            stream.write_all(&bytes)?;
            at = next;
            written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if let Some(kb) = kilobytes_per_second {
                let due = Duration::from_secs_f64((at - span.start) as f64 / (kb.max(1) * 1000) as f64);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
        Ok(())
    }

    /// Waits until the client goes away.
    fn hang(&self, stream: &mut TcpStream) -> io::Result<()> {
        use std::io::Read as _;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        while !self.stopping.load(Ordering::Relaxed) {
            match stream.read(&mut [0]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn log(&self, request: &Request, origin: usize, status: u16) -> Arc<Logged> {
        let logged = Arc::new(Logged {
            method: request.method.clone(),
            path: request.path.clone(),
            range: request.range.clone(),
            origin,
            status,
            bytes: AtomicU64::new(0),
        });
        if self.options.faults {
            self.log.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&logged));
        }
        logged
    }

    /// The log from entry `n` on, as JSON.
    fn log_since(&self, n: usize) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let entries: Vec<&Logged> = log.iter().skip(n).map(AsRef::as_ref).collect();
        serde_json::to_string(&entries).unwrap_or_default()
    }

    fn flaky(&self) -> std::sync::MutexGuard<'_, Flaky> {
        self.flaky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a short text; returns how many bytes of it were sent: none to who asks for the head alone.
fn send_text(
    stream: &mut TcpStream,
    request: &Request,
    head: Head,
    cors: Cors,
    media_type: &str,
    text: &str,
) -> io::Result<u64> {
    let head = head.with("Content-Type", media_type).with("Content-Length", text.len().to_string());
    head.write(stream, cors)?;
    if request.method == "HEAD" {
        return Ok(0);
    }
    stream.write_all(text.as_bytes())?;
    Ok(text.len() as u64)
}

/// The media type of a file name.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webmanifest" => "application/manifest+json",
        "md" | "txt" | "ts" | "wgsl" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
