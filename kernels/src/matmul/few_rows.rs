//! How the kernels for few rows divide a product: a workgroup takes some rows of W, or each of its lanes does.

use std::fmt;

use girih_shaders::Selection;

use super::product::Params;
use super::{WeightFormat, wrap};
use crate::caps::Caps;
use crate::choice::{Choice, Data, Launch, Requires};

/// Rows of x up to which these kernels are made: the sums of all rows, and blocks of x, stay in registers.
pub const MAX_M: u32 = 4;

/// Lanes of [`Kind::Lanes`].
pub(super) const LANES: u32 = 8;
/// The same where subgroups have 4: SwiftShader.
pub(super) const NARROW_LANES: u32 = 4;

/// Size of the workgroup and how many rows of W it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub wg: u32,
    pub rows: u32,
    pub kind: Kind,
}

/// How the sums of a workgroup come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each dot product is reduced through workgroup memory.
    Portable,
    /// Each dot product is reduced through subgroups.
    Subgroup,
    /// Each lane of a subgroup owns rows of W and x is broadcast.
    Lanes,
    /// The same with loads of 8 bytes.
    WideLanes,
}

/// `subgroup 128x4`: kind, invocations, rows of W of a workgroup or of a lane.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Portable => "portable",
            Kind::Subgroup => "subgroup",
            Kind::Lanes => "lanes",
            Kind::WideLanes => "wide lanes",
        };
        write!(f, "{kind} {}x{}", self.wg, self.rows)
    }
}

impl Config {
    pub const fn portable(wg: u32, rows: u32) -> Self {
        Self { wg, rows, kind: Kind::Portable }
    }

    pub const fn subgroup(wg: u32, rows: u32) -> Self {
        Self { wg, rows, kind: Kind::Subgroup }
    }

    pub const fn lanes(wg: u32, rows: u32) -> Self {
        Self { wg, rows, kind: Kind::Lanes }
    }

    pub const fn wide_lanes(wg: u32, rows: u32) -> Self {
        Self { wg, rows, kind: Kind::WideLanes }
    }

    /// Whether each lane owns rows.
    pub fn has_lanes(self) -> bool {
        matches!(self.kind, Kind::Lanes | Kind::WideLanes)
    }

    /// Itself, or what else computes the same where a kernel has failed with it.
    pub fn or_unblocked(self, caps: &Caps, kernel: &str, data: Data) -> Self {
        let blocked = |config: Self| caps.is_blocked(kernel, config.variant(), data);
        let mut config = self;
        if blocked(config) && config.has_lanes() {
            let kind = if caps.subgroups() { Kind::Subgroup } else { Kind::Portable };
            config = Self { wg: 8, rows: 4, kind };
        }
        if blocked(config) { Self { kind: Kind::Portable, ..config } } else { config }
    }

    /// Name of the variant.
    pub fn variant(self) -> &'static str {
        match self.kind {
            Kind::Portable => "portable",
            Kind::Subgroup => "subgroup",
            Kind::Lanes => "lanes_subgroup",
            Kind::WideLanes => "lanes_int64",
        }
    }

    /// Rows of W that a workgroup takes.
    pub fn group_rows(self) -> u32 {
        if self.has_lanes() { self.rows * self.wg } else { self.rows }
    }

    /// Workgroups for `n` rows of W.
    pub fn grid(self, caps: &Caps, n: u32) -> [u32; 3] {
        let [x, y] = wrap(caps, n.div_ceil(self.group_rows()));
        [x, y, 1]
    }

    /// The same for test cases: few along x, so that all axes count.
    pub fn grid_of_case(self, n: u32) -> [u32; 3] {
        let groups = n.div_ceil(self.group_rows());
        let x = groups.min(5);
        [x, groups.div_ceil(x), 1]
    }

    /// The pipeline of `file`, or of `lanes_file` where lanes own rows, that adds up `num_sums` numbers in every
    /// invocation.
    pub fn choice(
        self,
        [file, lanes_file]: [&'static str; 2],
        num_sums: u32,
        selection: Selection,
        data: Data,
    ) -> Choice {
        let (Self { wg, rows, kind }, variant) = (self, self.variant());
        let selection = selection.set("WG", wg).set("ROWS", rows);
        let (file, selection, workgroup_bytes, requires) = match kind {
            Kind::Portable => (file, selection, 4 * num_sums * wg, Requires::NOTHING),
            Kind::Subgroup => {
                let selection = selection.part("sums", "matmul/sums_subgroup.wgsl");
                (file, selection, num_sums * wg, Requires::SUBGROUPS) // one f32 for each subgroup
            }
            Kind::Lanes => (lanes_file, selection.set("LANES", wg), 0, Requires::lanes(wg)),
            Kind::WideLanes => {
                let requires = Requires { int64: true, ..Requires::lanes(wg) };
                (lanes_file, selection.set("LANES", wg), 0, requires)
            }
        };
        Choice { file, variant, selection, invocations: wg, workgroup_bytes, requires, data }
    }
}

/// Configurations of a kernel that are measured against each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidates {
    /// Lanes and rows of [`Kind::Lanes`], on CPUs.
    pub lanes: &'static [(u32, u32)],
    /// Rows of [`Kind::WideLanes`], on CPUs.
    pub wide: &'static [u32],
    /// Sizes of workgroups and rows of the other kinds, on CPUs.
    pub cpu: (&'static [u32], &'static [u32]),
    /// The same on GPUs.
    pub gpu: (&'static [u32], &'static [u32]),
}

impl Candidates {
    /// All of them, of CPUs or of GPUs.
    pub fn all(&self, cpu: bool) -> Vec<Config> {
        let lanes = if cpu { self.lanes } else { &[] };
        let wide = if cpu { self.wide } else { &[] };
        let mut all: Vec<Config> = lanes.iter().map(|&(wg, rows)| Config::lanes(wg, rows)).collect();
        all.extend(wide.iter().map(|&rows| Config::wide_lanes(LANES, rows)));
        let (sizes, rows) = if cpu { self.cpu } else { self.gpu };
        for kind in [Kind::Subgroup, Kind::Portable] {
            for &wg in sizes {
                all.extend(rows.iter().map(|&rows| Config { wg, rows, kind }));
            }
        }
        all
    }

    /// All of them, behind others.
    pub fn with(&self, others: &[Config]) -> Vec<Config> {
        let mut every = others.to_vec();
        for config in [true, false].into_iter().flat_map(|cpu| self.all(cpu)) {
            if !every.contains(&config) {
                every.push(config);
            }
        }
        every
    }

    /// Those that may be selected on a device, with weights of a format.
    pub fn on(&self, caps: &Caps, kernel: &str, format: WeightFormat) -> Vec<Config> {
        let smallest = caps.subgroup_size.map_or(0, |(smallest, _)| smallest);
        let works =
            |variant: &str| caps.subgroups() && !caps.is_blocked(kernel, variant, Data::Weights(format));
        let may = |c: &Config| match c.kind {
            // Workgroup memory where subgroups do the same costs time to compile and has never won.
            Kind::Portable => {
                !works("subgroup") && !caps.is_blocked(kernel, c.variant(), Data::Weights(format))
            }
            Kind::Subgroup => works(c.variant()),
            Kind::Lanes => works(c.variant()) && smallest.min(LANES) == c.wg,
            Kind::WideLanes => {
                let quantised = matches!(format, WeightFormat::Quant(_));
                quantised && caps.int64 && works(c.variant()) && smallest >= LANES
            }
        };
        self.all(caps.cpu_variants()).into_iter().filter(may).collect()
    }
}

/// Launches to time: `picks` without those that repeat an earlier one.
pub(super) fn bench_launches(
    caps: &Caps,
    params: Params,
    picks: impl IntoIterator<Item = (Choice, Config)>,
) -> Vec<Launch> {
    let mut launches: Vec<Launch> = Vec::new();
    for (choice, config) in picks {
        if launches.iter().any(|launch| launch.choice == choice) {
            continue;
        }
        let grid = config.grid(caps, params.num_n);
        let params = Params { grid_x: grid[0], ..params };
        launches.push(Launch::new(choice, &params, grid));
    }
    launches
}
