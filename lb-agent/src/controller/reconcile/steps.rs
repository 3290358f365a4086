//! Steps of a plan into the kernel, one after another.

use std::{collections::BTreeSet, time::Instant};

use super::{Reconciler, add};
use crate::domain::{
    kernel::{Kernel, KernelError, KernelView, Step},
    plan::advance,
};

/// Tables that are written together: each needs a descriptor meanwhile.
const TABLES: usize = 64;

impl<K: Kernel> Reconciler<K> {
    /// Takes steps that no plan of [`Self::bring_to`] is, to what the mirror holds.
    pub(in crate::controller) fn carry_out_beside(
        &mut self,
        steps: &[Step],
    ) -> Result<(), KernelError> {
        self.settled = None;
        self.carry_out(steps)
    }

    pub(super) fn carry_out(&mut self, steps: &[Step]) -> Result<(), KernelError> {
        let moves_vips = steps.iter().any(|step| {
            matches!(
                step,
                Step::PutVip(..) | Step::DeleteVip(_) | Step::FreeBackend(_)
            )
        });
        if moves_vips {
            // Before the first VIP is written its address must pass the filter; what is removed
            // may pass it a moment longer.
            let mut coming = KernelView {
                vips: self.view.vips.clone(),
                ..KernelView::default()
            };
            for step in steps.iter().filter(|step| matches!(step, Step::PutVip(..))) {
                advance(&mut coming, step);
            }
            self.kernel.set_filter(&coming)?;
        }
        // What cannot be done for one service must not keep the others from following.
        let mut stuck = BTreeSet::new();
        let mut first = None;
        let both_tables =
            |a: &Step, b: &Step| matches!(a, Step::PutTable(..)) && matches!(b, Step::PutTable(..));
        for group in steps
            .chunk_by(both_tables)
            .flat_map(|group| group.chunks(TABLES))
        {
            if matches!(group, [Step::PutTable(..), ..]) {
                self.take_tables(group, &mut stuck, &mut first);
                continue;
            }
            for step in group {
                let service = self.service_of(step);
                if !service.is_some_and(|service| stuck.contains(&service)) {
                    let Err(error) = self.take(step) else {
                        continue;
                    };
                    first.get_or_insert(error);
                    stuck.extend(service);
                }
                // A VIP that does not move to its new service still needs the old one.
                if let Step::PutVip(key, _) = step {
                    stuck.extend(self.view.vips.get(key).map(|vip| vip.service));
                }
            }
        }
        if moves_vips {
            self.kernel.set_filter(&self.view)?;
        }
        first.map_or(Ok(()), Err)
    }

    /// Writes tables together, but for those of services that are stuck.
    fn take_tables(
        &mut self,
        tables: &[Step],
        stuck: &mut BTreeSet<u32>,
        first: &mut Option<KernelError>,
    ) {
        let begun = Instant::now();
        let free = |step: &&Step| {
            let service = self.service_of(step);
            !service.is_some_and(|service| stuck.contains(&service))
        };
        let tables: Vec<Step> = tables.iter().filter(free).cloned().collect();
        let mut written = 0;
        for (step, outcome) in tables.iter().zip(self.kernel.put_tables(&tables)) {
            match outcome {
                Ok(()) => {
                    advance(&mut self.view, step);
                    written += 1;
                }
                Err(error) => {
                    first.get_or_insert(error);
                    stuck.extend(self.service_of(step));
                }
            }
        }
        if written > 0 {
            let took = begun.elapsed();
            let (_, total, count) = self.rebuilds;
            self.rebuilds = (took / written, total + took, count + u64::from(written));
        }
    }

    /// Takes one step, and notes that it was taken.
    fn take(&mut self, step: &Step) -> Result<(), KernelError> {
        let totals = match step {
            Step::FreeBackend(id) => self.totals(*id)?,
            _ => None,
        };
        self.kernel.apply(step)?;
        if let Some((service, stats)) = totals {
            let total = self.retired.entry(service).or_default();
            add(total, &stats, 0);
            if let Step::FreeBackend(id) = step {
                total
                    .attempts
                    .add(&self.attempts.remove(id).unwrap_or_default());
            }
        }
        advance(&mut self.view, step);
        match step {
            Step::PutBackend(id, backend) if !backend.active => {
                self.taken_out.insert(*id, self.census.pass);
            }
            Step::PutBackend(id, _) | Step::FreeBackend(id) => {
                self.taken_out.remove(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Id of the service that a step belongs to, before it is taken.
    fn service_of(&self, step: &Step) -> Option<u32> {
        match step {
            Step::PutBackend(_, backend) => Some(backend.service),
            Step::PutTable(service, _)
            | Step::DeleteTable(service)
            | Step::PutSources(service, _) => Some(*service),
            Step::CutStrangers(_) => None,
            Step::PutVip(_, vip) => Some(vip.service),
            Step::DeleteVip(key) => self.view.vips.get(key).map(|vip| vip.service),
            Step::CutUdp(id) | Step::FreeBackend(id) => {
                self.view.backends.get(id).map(|backend| backend.service)
            }
        }
    }
}
