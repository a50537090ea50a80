//! What `girih bench model` says of experts: what a cache of them has done, and how well one suits the model.

use std::io::Write;

use girih_kernels::Gpu;
use girih_model::{ExpertCache, ExpertCounts, Locality, Session, Tail};
use serde_json::{Value, json};

use crate::error::Failure;

/// Tokens of a window: that of the published measurements.
const WINDOW: usize = 16;

/// The cache, and what it has done for a number of prompt tokens and of generated ones.
pub fn report(cache: &ExpertCache, counts: [ExpertCounts; 2], tokens: [u64; 2]) -> Value {
    let [prefill, decode] = [0, 1].map(|i| of_tokens(&counts[i], tokens[i]));
    let memory = cache.memory();
    json!({
        "memory_bytes": memory.bytes, "eviction": memory.eviction.name(), "prefetch": memory.prefetch.name(), "places": cache.num_places(),
        "prefill": prefill, "decode": decode,
    })
}

fn of_tokens(counts: &ExpertCounts, tokens: u64) -> Value {
    let ExpertCounts { hits, misses, bytes, rounds, passes, prefetched, prefetch_hits, read_seconds } =
        *counts;
    json!({
        "tokens": tokens, "hits": hits, "misses": misses, "hit_rate": hits as f64 / (hits + misses).max(1) as f64,
        "prefetched": prefetched, "prefetch_hits": prefetch_hits, "bytes": bytes, "bytes_per_token": bytes as f64 / tokens.max(1) as f64,
        "rounds": rounds, "passes": passes, "read_seconds": read_seconds,
    })
}

/// Locality of the tokens that were generated last; none of models without experts, or of few tokens.
pub async fn locality(gpu: &Gpu, session: &mut Session, generated: u32) -> Result<Option<Value>, Failure> {
    let blocks = &session.model().decoder()?.blocks;
    if blocks.iter().all(|block| block.feed_forward().mixture().is_none()) {
        return Ok(None);
    }
    let out = session.decode_plan(Tail::Greedy)?.outputs()[0].to_u32(gpu).await?;
    let vocab_size = session.model().config().vocab_size;
    let ids: Vec<u32> =
        out.into_iter().skip(1).take(generated as usize).filter(|&id| id < vocab_size).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let routing = session.model().routing(&ids).await?;
    Ok(Locality::of(&routing.layers, WINDOW).map(|l| {
        let rates =
            |c: &girih_model::CacheRates| json!({ "rho": c.rho, "sch": c.sch, "lru": c.lru, "lfu": c.lfu });
        json!({
            "tokens": ids.len(), "window": l.window, "srp": l.srp, "srp_ratio": l.srp_ratio,
            "caches": l.caches.iter().map(rates).collect::<Vec<_>>(),
        })
    }))
}

/// The same for people.
pub fn print(out: &mut impl Write, cache: Option<&Value>, locality: Option<&Value>) -> std::io::Result<()> {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    if let Some(cache) = cache {
        writeln!(
            out,
            "\nexperts: {} places in {:.1} MB, {}",
            cache["places"],
            number(&cache["memory_bytes"]) / 1e6,
            cache["eviction"].as_str().unwrap_or_default()
        )?;
        for what in ["prefill", "decode"] {
            let of = &cache[what];
            writeln!(
                out,
                "{what}: {} hits, {} misses ({:.1}%), {} prefetched ({} used), {:.3} MB a token, {:.2} rounds a layer, {:.2} s waiting for files",
                of["hits"],
                of["misses"],
                100.0 * number(&of["hit_rate"]),
                of["prefetched"],
                of["prefetch_hits"],
                number(&of["bytes_per_token"]) / 1e6,
                number(&of["rounds"]) / number(&of["passes"]).max(1.0),
                number(&of["read_seconds"])
            )?;
        }
    }
    if let Some(l) = locality {
        let (window, tokens, percent) = (&l["window"], &l["tokens"], 100.0 * number(&l["srp"]));
        let ratio = number(&l["srp_ratio"]);
        writeln!(
            out,
            "\nlocality of {tokens} tokens, windows of {window}: SRP {percent:.1}% ({ratio:.2} experts held for each used)"
        )?;
        for c in l["caches"].as_array().into_iter().flatten() {
            let [sch, lru, lfu] = ["sch", "lru", "lfu"].map(|name| 100.0 * number(&c[name]));
            let rho = &c["rho"];
            writeln!(
                out,
                "a cache of {rho} x the experts of a token: SCH {sch:.1}%, LRU {lru:.1}%, LFU {lfu:.1}%"
            )?;
        }
    }
    Ok(())
}
