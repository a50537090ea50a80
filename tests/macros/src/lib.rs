//! The attribute of tests that run natively and in a browser.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// A test on a device, from one source text for native programs and for browsers.
///
/// ```ignore
/// #[on_device("goldens/ops/rmsnorm")]
/// async fn rms_norm_agrees_with_the_goldens(gpu: Gpu) {
///     ...
/// }
/// ```
///
/// Natively this is a `#[test]` of the function's name that blocks on the body with `girih_tests::gpu()`. For a browser
/// the function stays as it is, public: `tests/browser` finds it by the attribute and calls it. The arguments name files
/// that the test reads, as beginnings of paths below `/goldens` and `/assets`: a page must fetch them first.
#[proc_macro_attribute]
pub fn on_device(files: TokenStream, item: TokenStream) -> TokenStream {
    expand(files, item).unwrap_or_else(|message| {
        format!("::core::compile_error!({message:?});").parse().expect("one statement")
    })
}

fn expand(files: TokenStream, item: TokenStream) -> Result<TokenStream, &'static str> {
    for token in files {
        let text = token.to_string();
        if !(text == "," || text.starts_with("\"goldens/") || text.starts_with("\"assets/")) {
            return Err("arguments of on_device are beginnings of paths: \"goldens/..\", \"assets/..\"");
        }
    }
    let tokens: Vec<TokenTree> = item.into_iter().collect();
    let is = |token: &TokenTree, word: &str| matches!(token, TokenTree::Ident(i) if i.to_string() == word);
    let at = tokens.windows(2).position(|pair| is(&pair[0], "async") && is(&pair[1], "fn"));
    let at = at.ok_or("on_device is for `async fn name(gpu: Gpu)`")?;
    let (attributes, function) = tokens.split_at(at);
    let [_, _, TokenTree::Ident(name), TokenTree::Group(parameters), TokenTree::Group(_)] = function else {
        return Err("on_device is for functions that take the device and return nothing");
    };
    if parameters.delimiter() != Delimiter::Parenthesis || parameters.stream().is_empty() {
        return Err("a test on a device takes it: `gpu: Gpu`");
    }
    let function: TokenStream = function.iter().cloned().collect();
    // A test that only records waits for nothing.
    let allowed = "#[allow(clippy::unused_async)]";
    let mut body = parse(allowed);
    body.extend(function.clone());
    body.extend(parse(&format!("::girih_tests::on_device::run({name})")));
    let mut out = parse("#[cfg(not(target_arch = \"wasm32\"))] #[test]");
    out.extend(attributes.iter().cloned());
    out.extend(parse(&format!("fn {name}()")));
    out.extend([TokenTree::Group(Group::new(Delimiter::Brace, body))]);
    out.extend(parse("#[cfg(target_arch = \"wasm32\")]"));
    out.extend(attributes.iter().cloned());
    out.extend(parse(allowed));
    out.extend(parse("pub"));
    out.extend(function);
    Ok(out)
}

fn parse(text: &str) -> TokenStream {
    text.parse().expect("tokens")
}
