use std::io::Read as _;
use std::ops::Range;

use super::*;
use crate::package::tests::TempDir;

/// Bytes made by a rule, as a synthetic checkpoint is.
struct Counting(u64);

impl Content for Counting {
    fn len(&self) -> u64 {
        self.0
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.0)
    }

    fn read(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        Ok(range.map(|i| i as u8).collect())
    }
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// A folder with two files, and `/made/` of 1000 bytes.
fn server(faults: bool) -> (Server, TempDir) {
    let dir = TempDir::new();
    std::fs::write(dir.path().join("index.html"), "<p>hello").unwrap();
    std::fs::create_dir(dir.path().join("models")).unwrap();
    std::fs::write(dir.path().join("models/a b.bin"), "0123456789").unwrap();
    std::fs::write(dir.path().join("models/index.html"), "models").unwrap();
    let made = Route::new("/made/", |path| (path == "x.wasm").then(|| Box::new(Counting(1000)) as _));
    let routes = vec![Route::folder("/", dir.path()), made];
    (Server::start(routes, Options { port: 0, faults }).unwrap(), dir)
}

fn ask(url: &str, method: &str, path: &str, headers: &str) -> Response {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes())
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head, body: bytes[end + 4..].to_vec() }
}

fn get(server: &Server, path: &str) -> Response {
    ask(server.url(), "GET", path, "")
}

#[test]
fn files_have_types_tags_and_the_policy() {
    let (server, _dir) = server(false);
    let page = get(&server, "/");
    assert_eq!((page.status, page.body.as_slice()), (200, &b"<p>hello"[..]));
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("Content-Security-Policy"), Some(CONTENT_SECURITY_POLICY));
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    assert_eq!(page.header("Access-Control-Allow-Origin"), None);
    let made = get(&server, "/made/x.wasm");
    assert_eq!(made.header("Content-Type"), Some("application/wasm"));
    assert_eq!(made.header("ETag"), Some("\"1000\""));
    assert_eq!(made.body.len(), 1000);
    assert_eq!(get(&server, "/models/a%20b.bin").body, b"0123456789");
    assert_eq!(get(&server, "/models/").body, b"models");
    let folder = get(&server, "/models");
    assert_eq!((folder.status, folder.header("Location")), (308, Some("/models/")));
}

#[test]
fn nothing_outside_of_the_folder_is_served() {
    let (server, dir) = server(false);
    let outside = dir.path().file_name().unwrap().to_string_lossy().into_owned();
    for path in
        ["/none", "/../x", "/%2e%2e/x", &format!("/../{outside}/index.html"), "//etc/passwd", "/made/y"]
    {
        assert_eq!(get(&server, path).status, 404, "{path}");
    }
    assert_eq!(ask(server.url(), "POST", "/", "Content-Length: 0\r\n").status, 405);
    let head = ask(server.url(), "HEAD", "/", "");
    assert_eq!((head.status, head.header("Content-Length"), head.body.len()), (200, Some("8"), 0));
}

#[test]
fn ranges_are_cut_out() {
    let (server, _dir) = server(false);
    let part = ask(server.url(), "GET", "/models/a%20b.bin", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &b"234"[..]));
    assert_eq!(part.header("Content-Range"), Some("bytes 2-4/10"));
    assert_eq!(part.header("Content-Length"), Some("3"));
    let outside = ask(server.url(), "GET", "/models/a%20b.bin", "Range: bytes=10-\r\n");
    assert_eq!((outside.status, outside.header("Content-Range")), (416, Some("bytes */10")));
    let other = ask(server.url(), "GET", "/made/x.wasm", "Range: bytes=0-1\r\nIf-Range: \"999\"\r\n");
    assert_eq!((other.status, other.body.len()), (200, 1000));
}

#[test]
fn faults_are_off_unless_asked_for() {
    let (server, _dir) = server(false);
    assert_eq!(get(&server, "/fault/status/500/index.html").status, 404);
    assert_eq!(get(&server, "/log").status, 404);
    assert_eq!(server.second_origin_url(), None);
}

#[test]
fn a_truncated_body_announces_its_full_length() {
    let (server, _dir) = server(true);
    let cut = get(&server, "/fault/truncate/7/made/x.wasm");
    assert_eq!((cut.status, cut.header("Content-Length"), cut.body.len()), (200, Some("1000"), 7));
    for (range, wanted) in [("500-", 250), ("0-9", 5), ("0-9", 10)] {
        let path = "/fault/flaky/2/once/made/x.wasm";
        let part = ask(server.url(), "GET", path, &format!("Range: bytes={range}\r\n"));
        assert_eq!((part.status, part.body.len()), (206, wanted), "{range}");
    }
    assert_eq!(get(&server, "/fault/flaky/1/twice/made/x.wasm").body.len(), 500, "ids count apart");
}

#[test]
fn other_faults() {
    let (server, _dir) = server(true);
    assert_eq!(get(&server, "/fault/status/503/made/x.wasm").status, 503);
    assert_eq!(get(&server, "/fault/nonsense/made/x.wasm").status, 400);
    let whole = ask(server.url(), "GET", "/fault/norange/made/x.wasm", "Range: bytes=0-9\r\n");
    assert_eq!((whole.status, whole.body.len(), whole.header("Accept-Ranges")), (200, 1000, None));
    let corrupt = ask(server.url(), "GET", "/fault/corrupt/12/made/x.wasm", "Range: bytes=10-13\r\n");
    assert_eq!(corrupt.body, [10, 11, 13, 13]);
    let begun = Instant::now();
    assert_eq!(get(&server, "/fault/slow/5/made/x.wasm").body.len(), 1000);
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
}

#[test]
fn a_hanging_response_ends_with_the_server() {
    let (server, _dir) = server(true);
    let url = server.url().to_owned();
    let waiting = thread::spawn(move || ask(&url, "GET", "/fault/hang/made/x.wasm", ""));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    drop(server);
    let response = waiting.join().unwrap();
    assert_eq!((response.header("Content-Length"), response.body.len()), (Some("1000"), 0));
}

#[test]
fn the_second_origin_refuses_other_origins() {
    let (server, _dir) = server(true);
    let second = server.second_origin_url().unwrap();
    assert_ne!(second, server.url());
    let cors = |path: &str, method: &str| {
        let response = ask(second, method, path, "Origin: http://127.0.0.1:1\r\n");
        let header = |name| response.header(name).map(str::to_owned);
        (response.status, header("Access-Control-Allow-Origin"), header("Access-Control-Expose-Headers"))
    };
    assert_eq!(cors("/made/x.wasm", "GET"), (200, None, None));
    assert_eq!(cors("/made/x.wasm", "OPTIONS"), (204, None, None));
    assert_eq!(cors("/cors-unexposed/made/x.wasm", "GET"), (200, Some("*".into()), None));
    let (status, origin, exposed) = cors("/cors/made/x.wasm", "GET");
    assert_eq!((status, origin.as_deref()), (200, Some("*")));
    assert!(exposed.unwrap().contains("Content-Range"));
    assert_eq!(cors("/cors/none", "GET").0, 404);
    assert_eq!(cors("/cors/none", "GET").1.as_deref(), Some("*"), "a page may see that there is nothing");
    let redirect = get(&server, "/fault/redirect/made/x.wasm");
    assert_eq!(redirect.header("Location").unwrap(), format!("{second}cors/made/x.wasm"));
    let origins: Vec<String> = serde_json::from_slice(&get(&server, "/origins").body).unwrap();
    assert_eq!(origins, [server.url(), second]);
}

#[test]
fn requests_are_logged() {
    let (server, _dir) = server(true);
    get(&server, "/made/x.wasm");
    ask(server.url(), "GET", "/fault/truncate/3/made/x.wasm", "Range: bytes=5-9\r\n");
    get(&server, "/none");
    let log = |since: usize| -> Vec<serde_json::Value> {
        serde_json::from_slice(&get(&server, &format!("/log?since={since}")).body).unwrap()
    };
    assert_eq!(log(0).len(), 3, "reading the log is not logged");
    assert_eq!(
        log(1)[0],
        serde_json::json!({
            "method": "GET", "path": "/fault/truncate/3/made/x.wasm", "range": "bytes=5-9", "origin": 1,
            "status": 206, "bytes": 3,
        })
    );
    assert_eq!(log(2)[0]["status"], 404);
    assert!(log(3).is_empty());
}
