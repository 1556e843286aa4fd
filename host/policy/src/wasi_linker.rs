//! Links components to the WASI state of their instances.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::{WasiCtxView, WasiView};

use crate::instance::guest_wasi::CLOCK_STEP_NANOS;
use crate::instance::instance_data::InstanceData;

pub(crate) fn add_wasi_to_linker(linker: &mut Linker<InstanceData>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // Replaces wasmtime's clock, whose sleep really waits.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, HasSelf<InstanceData>>(linker, |guest| guest)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl WasiView for InstanceData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.get_or_create_wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

impl monotonic_clock::Host for InstanceData {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.get_or_create_wasi().read_and_advance_clock())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(CLOCK_STEP_NANOS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wasi = self.get_or_create_wasi();
        wasi.advance_clock_to(when);
        wasi.new_ready_pollable()
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wasi = self.get_or_create_wasi();
        wasi.advance_clock_by(nanos);
        wasi.new_ready_pollable()
    }
}
