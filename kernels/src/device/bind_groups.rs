//! Bind groups, made once for each layout and set of ranges.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::failure::Watched;
use super::lock::lock;
use super::pipelines::{Layout, LayoutKey};
use super::recent::Recent;
use crate::buffer::{Buffer, RangeId};

/// Layout, uniform buffer, storage buffers.
type Key = (LayoutKey, RangeId, Vec<RangeId>);

/// Bind groups that are kept at most: some passes of a large model. Plans hold their own.
const MOST: usize = 4096;

/// The bind groups of a device, whoever made them.
#[derive(Debug)]
pub(crate) struct BindGroups {
    groups: Recent<Key, wgpu::BindGroup>,
    /// Identities of freed buffers.
    graveyard: Arc<Mutex<Vec<u64>>>,
}

impl BindGroups {
    /// Without entries. Who frees a buffer leaves its identity in the graveyard.
    pub fn new(graveyard: Arc<Mutex<Vec<u64>>>) -> Self {
        Self { groups: Recent::new(MOST), graveyard }
    }

    /// Drops the bind groups of freed buffers; they hold the memory until then.
    pub fn forget_freed(&mut self) {
        let dead: HashSet<u64> = std::mem::take(&mut *lock(&self.graveyard)).into_iter().collect();
        if !dead.is_empty() {
            let is_dead = |r: &RangeId| dead.contains(&r.0);
            self.groups.retain(|(_, u, b)| !is_dead(u) && !b.iter().any(is_dead));
        }
    }

    /// A bind group, from here if it was made before; entries of freed buffers are dropped first.
    pub fn get(
        &mut self,
        on: &Watched,
        layout: &Layout,
        uniforms: &Buffer,
        buffers: &[Buffer],
    ) -> wgpu::BindGroup {
        self.forget_freed();
        let key = (layout.key.clone(), uniforms.range_id(), buffers.iter().map(Buffer::range_id).collect());
        self.groups.get_or_insert_with(key, || make(on, layout, uniforms, buffers)).clone()
    }
}

fn make(on: &Watched, layout: &Layout, uniforms: &Buffer, buffers: &[Buffer]) -> wgpu::BindGroup {
    on.counters.add(1, |c| &c.bind_groups);
    let params = wgpu::BufferBinding {
        buffer: uniforms.raw(),
        offset: 0,
        size: std::num::NonZeroU64::new(layout.key.1),
    };
    let mut entries =
        vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
    for (i, buffer) in buffers.iter().enumerate() {
        let resource = wgpu::BindingResource::Buffer(buffer.binding());
        entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
    }
    on.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout.raw,
        entries: &entries,
    })
}
