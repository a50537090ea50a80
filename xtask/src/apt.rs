//! What apt's files say: the distribution and its mirrors. Text in, facts out.

/// Distribution, from `/etc/os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `debian`, `ubuntu`, `fedora`, ...
    pub id: String,
    /// Code name of the release: `bookworm`, `noble`; empty where there is none.
    pub codename: String,
}

/// Reads `/etc/os-release`.
pub fn os_release(text: &str) -> OsRelease {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    OsRelease { id: value("ID"), codename: value("VERSION_CODENAME") }
}

/// One mirror and what is taken from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Mirror.
    pub uri: String,
    /// `bookworm`, `bookworm-updates`, ...
    pub suites: Vec<String>,
    /// `main`, ...
    pub components: Vec<String>,
    /// Key file, empty where apt's own keys are used.
    pub signed_by: String,
}

/// Reads one file of `/etc/apt`: `deb` lines, or stanzas if its name ends in `.sources`.
pub fn sources(name: &str, text: &str) -> Vec<Source> {
    if name.ends_with(".sources") { stanzas(text) } else { text.lines().filter_map(one_line).collect() }
}

/// `deb [arch=amd64 signed-by=/x] http://mirror suite component ...`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.starts_with(char::is_whitespace).then(|| rest.trim_start())?;
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.unwrap_or_default().to_owned(),
    })
}

/// Stanzas of `Types: URIs: Suites: Components: Signed-By: Enabled:` between empty lines.
fn stanzas(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue; // also within a stanza
        }
        if line.trim().is_empty() {
            found.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let value =
        |key: &str| fields.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str());
    let list = |key: &str| value(key).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if value("enabled").eq_ignore_ascii_case("no") || !list("types").contains(&"deb".to_owned()) {
        return Vec::new();
    }
    // A key written into the file itself cannot be repeated as a path.
    let signed_by = if value("signed-by").starts_with('/') { value("signed-by") } else { "" };
    let source = |uri| Source {
        uri,
        suites: list("suites"),
        components: list("components"),
        signed_by: signed_by.to_owned(),
    };
    list("uris").into_iter().map(source).collect()
}

/// Where a suite's backports come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backports {
    /// Already among the sources.
    Present,
    /// Contents of a `.sources` file that adds them, from the mirror of the suite itself.
    Add(String),
    /// No source has the suite.
    NoMirror,
}

/// Looks for `<codename>-backports`.
pub fn backports(sources: &[Source], codename: &str) -> Backports {
    let suite = format!("{codename}-backports");
    let has = |source: &&Source, suite: &str| {
        source.suites.iter().any(|s| s == suite) && source.components.iter().any(|c| c == "main")
    };
    if sources.iter().any(|s| has(&s, &suite)) {
        return Backports::Present;
    }
    let Some(mirror) = sources.iter().find(|s| has(s, codename)) else { return Backports::NoMirror };
    let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", mirror.uri);
    if !mirror.signed_by.is_empty() {
        text = format!("{text}Signed-By: {}\n", mirror.signed_by);
    }
    Backports::Add(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# http://snapshot.example/archive
URIs: http://deb.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm-backports
Components: main
";

    #[test]
    fn os_release_is_read() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\nHOME_URL=\"x=y\"\n";
        assert_eq!(os_release(text), OsRelease { id: "debian".into(), codename: "bookworm".into() });
        assert_eq!(os_release("ID='fedora'\n"), OsRelease { id: "fedora".into(), codename: String::new() });
    }

    #[test]
    fn stanzas_are_read() {
        let found = sources("debian.sources", DEB822);
        assert_eq!(found.len(), 1, "deb-src and disabled stanzas are no sources of packages");
        assert_eq!(found[0].uri, "http://deb.example/debian");
        assert_eq!(found[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(found[0].signed_by, "/usr/share/keyrings/debian-archive-keyring.gpg");
    }

    #[test]
    fn lines_are_read() {
        let text = "# deb http://off.example x main\ndebug\ndeb-src http://src.example bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm main non-free # c\n\
                    deb http://b.example/debian bookworm-backports main\n";
        let found = sources("sources.list", text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].uri, "http://deb.example/debian");
        assert_eq!(found[0].components, ["main", "non-free"]);
        assert_eq!(found[0].signed_by, "/k.gpg");
        assert_eq!(backports(&found, "bookworm"), Backports::Present);
    }

    #[test]
    fn backports_come_from_the_mirror_of_the_suite() {
        let Backports::Add(text) = backports(&sources("debian.sources", DEB822), "bookworm") else {
            panic!("a mirror is there")
        };
        assert!(text.contains("URIs: http://deb.example/debian\nSuites: bookworm-backports\n"), "{text}");
        assert!(text.contains("Signed-By: /usr/share/keyrings/"), "{text}");
        assert_eq!(sources("b.sources", &text).len(), 1, "what is written can be read");
        assert_eq!(backports(&[], "bookworm"), Backports::NoMirror);
    }
}
