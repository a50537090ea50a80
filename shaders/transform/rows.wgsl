// X · P2, one channel at a time: a product along the axis of stride 1.
fn mix_rows(id: u32) { mix_columns(id, p.stages[1]); }

fn p2_coefficients(order: u32, tile: u32, k: u32) -> Eight {
    let at = k * order;
    let last = order - 1u;
    let column = 8u * tile;
    return Eight(
        vec4(p2[at + min(column, last)], p2[at + min(column + 1u, last)], p2[at + min(column + 2u, last)],
            p2[at + min(column + 3u, last)]),
        vec4(p2[at + min(column + 4u, last)], p2[at + min(column + 5u, last)], p2[at + min(column + 6u, last)],
            p2[at + min(column + 7u, last)]),
    );
}
