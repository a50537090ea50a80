//! A test over many goldens reports all that fail, not the first alone.

/// Runs a check for every item, through all failures.
///
/// In a browser the first failure ends the test: a panic ends its instance.
///
/// # Panics
/// If a check did; the message names all items that failed, with theirs.
pub async fn each<T>(items: Vec<(String, T)>, check: impl AsyncFn(&str, T)) {
    let all = items.len();
    let mut failures = Vec::new();
    for (name, item) in items {
        if let Err(message) = attempt(check(&name, item)).await {
            failures.push(format!("{name}: {message}"));
        }
    }
    assert!(failures.is_empty(), "{} of {all} fail:\n{}", failures.len(), failures.join("\n"));
}

#[cfg(target_arch = "wasm32")]
async fn attempt(check: impl Future<Output = ()>) -> Result<(), String> {
    check.await;
    Ok(())
}

#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::unused_async, reason = "in a browser it waits")]
async fn attempt(check: impl Future<Output = ()>) -> Result<(), String> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // What a failed check leaves behind is its own.
    catch_unwind(AssertUnwindSafe(|| pollster::block_on(check))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn all_failures_are_reported() {
        let seen = Cell::new(0);
        let check = async |name: &str, item: u32| {
            seen.set(seen.get() + 1);
            assert!(item.is_multiple_of(2), "{name} is odd");
        };
        let items = |numbers: &[u32]| numbers.iter().map(|&n| (format!("item {n}"), n)).collect::<Vec<_>>();
        let run = |numbers: &[u32]| attempt(each(items(numbers), check));
        let error = pollster::block_on(run(&[1, 2, 3])).expect_err("two are odd");
        assert_eq!(error, "2 of 3 fail:\nitem 1: item 1 is odd\nitem 3: item 3 is odd");
        assert_eq!(seen.get(), 3);
        pollster::block_on(run(&[2, 4])).expect("none is odd");
    }
}
