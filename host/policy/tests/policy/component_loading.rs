//! Loading of components: rejected files, compilation and caches.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_encoding::HEXLOWER;
use weir_core::manifest::{Capability, ResolvedComponentFile, Role};
use weir_core::ports::ComponentStateStore as _;
use weir_core::{JobId, PolicyError, TenantId};
use weir_policy::{PolicyHost, PolicyHostConfig};

use crate::compile_bomb::compile_bomb_component;
use crate::contract_functions::call_function;
use crate::support::*;

/// Creates a host with its own folder of compiled components.
fn host_with_own_cache(folder: &Path, change: impl FnOnce(&mut PolicyHostConfig)) -> Arc<PolicyHost> {
    let mut config = test_config();
    config.cache_folder = folder.join("compiled");
    change(&mut config);
    PolicyHost::new(config).unwrap()
}

/// Returns the reason why a component cannot be opened.
async fn open_error(host: &PolicyHost, component: &ResolvedComponentFile, role: Role) -> String {
    match open_job(
        host,
        &single_component_pipeline(&[role], component),
        &Arc::new(FakeCapabilities::default()),
    )
    .await
    {
        Err(PolicyError::Unusable {
            component: name,
            reason,
        }) => {
            assert_eq!(name, component.name);
            assert!(!reason.contains('\n'), "{reason}");
            reason
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was opened", component.name),
    }
}

#[tokio::test]
async fn error_names_an_import_that_is_not_granted() {
    let host = new_host();
    for (name, grant) in [
        ("state", Capability::State),
        ("rasterizer", Capability::Rasterizer),
        ("inference", Capability::Inference),
    ] {
        let component = built_component(&format!("hostile-{name}"));
        let reason = open_error(&host, &component, Role::Routing).await;
        assert!(
            reason.contains(&format!("weir:pipeline/{name}@0.1.0")),
            "{reason}"
        );
        assert!(
            reason.contains(&format!("add \"{name}\" to [capabilities] grant")),
            "{reason}"
        );

        let mut granted = single_component_pipeline(&[Role::Routing], &component);
        granted.manifest.capabilities.grant = vec![grant];
        let port = Arc::new(FakeCapabilities::default());
        let job = open_job(&host, &granted, &port).await.unwrap();
        call_function(&job, "routing.page").await.unwrap();
        assert_eq!(
            port.generate_calls.load(Ordering::Relaxed),
            usize::from(name == "inference")
        );
    }
}

#[tokio::test]
async fn component_state_persists_across_jobs_of_a_tenant() {
    let state = Arc::new(FakeComponentState::default());
    let mut config = test_config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = single_component_pipeline(&[Role::Routing], &built_component("hostile-state"));
    pipeline.manifest.capabilities.grant = vec![Capability::State];
    let (one, two): (TenantId, TenantId) = ("one".parse().unwrap(), "two".parse().unwrap());
    for tenant in [&one, &one, &two] {
        let job = host
            .open_job(weir_core::ports::OpenPolicyRequest {
                tenant,
                job: JobId::new(),
                pipeline: &pipeline,
                capabilities: Arc::new(FakeCapabilities::default()),
            })
            .await
            .unwrap();
        call_function(&job, "routing.page").await.unwrap();
    }
    assert_eq!(
        state.applied_groups.load(Ordering::Relaxed),
        3,
        "one transaction for each call"
    );
    let value = async |tenant: &TenantId| {
        let value = state
            .values
            .get_component_state_value(tenant, "test", "calls")
            .await
            .unwrap();
        value.unwrap().len()
    };
    assert_eq!((value(&one).await, value(&two).await), (2, 1));
}

/// The component fills the state and traps when a write is refused.
#[tokio::test]
async fn a_call_that_traps_leaves_no_state() {
    let state = Arc::new(FakeComponentState::default());
    let mut config = test_config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = single_component_pipeline(&[Role::Routing], &built_component("hostile-second-page"));
    pipeline.manifest.capabilities.grant = vec![Capability::State, Capability::Inference];
    pipeline.manifest.settings.insert("attack".into(), "state".into());
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    call_function(&job, "routing.page").await.unwrap();
    let error = call_function(&job, "routing.page").await.unwrap_err();
    assert!(
        error.to_string().contains("1048576 bytes: delete some"),
        "{error}"
    );
    assert!(state.values.is_empty());
    assert_eq!(state.applied_groups.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn files_that_are_not_components_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let host = host_with_own_cache(folder.path(), |_| {});
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        component_file(&path)
    };
    let whole = fs::read(built_component("routing").file).unwrap();
    for (file, word) in [
        (write("empty.wasm", b""), "unexpected end"),
        (write("text.wasm", b"hello, this is no WebAssembly"), "magic"),
        (write("module.wasm", b"\0asm\x01\0\0\0"), "module"),
        (write("cut.wasm", &whole[..whole.len() / 2]), ""),
    ] {
        let reason = open_error(&host, &file, Role::Routing).await;
        assert!(reason.to_lowercase().contains(word), "{}: {reason}", file.name);
    }
    let missing = ResolvedComponentFile {
        name: "missing".into(),
        file: folder.path().join("missing.wasm").into(),
        digest: [0; 32],
    };
    assert!(
        open_error(&host, &missing, Role::Routing)
            .await
            .contains("cannot be read")
    );
    let changed = write("changed.wasm", &whole);
    fs::write(&changed.file, b"something else").unwrap();
    assert!(
        open_error(&host, &changed, Role::Routing)
            .await
            .contains("has changed")
    );
    assert_no_temporary_files(folder.path());
}

/// Asserts that the cache folder has no temporary files.
fn assert_no_temporary_files(folder: &Path) {
    for entry in fs::read_dir(folder.join("compiled")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".cwasm"), "{name}");
    }
}

#[tokio::test]
async fn a_component_without_the_role_is_rejected() {
    let reason = open_error(&new_host(), &built_component("routing"), Role::Batching).await;
    assert!(
        reason.contains("does not export weir:pipeline/batching@0.1.0")
            && reason.contains("exports weir:pipeline/routing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = single_component_pipeline(&[Role::Routing], &built_component("routing"));
    let port = Arc::new(FakeCapabilities::default());
    let host = host_with_own_cache(folder.path(), |_| {});
    // Four concurrent jobs share one compilation.
    let opened = futures::future::join_all((0..4).map(|_| open_job(&host, &pipeline, &port))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!((host.stats().compilations, host.stats().cache_loads), (1, 1));
    drop((opened, host));

    // Another host, as after a restart, finds the compiled code on disk.
    let host = host_with_own_cache(folder.path(), |_| {});
    open_job(&host, &pipeline, &port).await.unwrap();
    assert_eq!((host.stats().compilations, host.stats().cache_loads), (0, 1));
    drop(host);

    // A damaged file counts as missing, wherever the damage is.
    let compiled = fs::read_dir(folder.path().join("compiled"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let bytes = fs::read(compiled.path()).unwrap();
    let flipped = {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        flipped
    };
    for damaged in [&bytes[..bytes.len() / 2], &flipped, b""] {
        fs::write(compiled.path(), damaged).unwrap();
        let host = host_with_own_cache(folder.path(), |_| {});
        open_job(&host, &pipeline, &port).await.unwrap();
        assert_eq!((host.stats().compilations, host.stats().cache_loads), (1, 1));
    }
    assert_no_temporary_files(folder.path());
}

#[tokio::test]
async fn a_modified_cache_file_is_verified_again() {
    let folder = tempfile::tempdir().unwrap();
    let host = host_with_own_cache(folder.path(), |config| config.max_loaded_components = 1);
    let port = Arc::new(FakeCapabilities::default());
    let [one, other] = [Role::Routing, Role::Batching]
        .map(|role| single_component_pipeline(&[role], &built_component(role.name())));
    open_job(&host, &one, &port).await.unwrap();
    let compiled = fs::read_dir(folder.path().join("compiled")).unwrap().next();
    let path = compiled.unwrap().unwrap().path();
    // Evicts the component from memory, loads it again, and evicts it again.
    for pipeline in [&other, &one, &other] {
        open_job(&host, pipeline, &port).await.unwrap();
    }
    assert_eq!((host.stats().compilations, host.stats().cache_loads), (2, 4));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    open_job(&host, &one, &port).await.unwrap();
    assert_eq!((host.stats().compilations, host.stats().cache_loads), (3, 5));
}

/// Returns those of the named components that are in the cache folder.
fn components_in_cache<'a>(folder: &Path, names: &[&'a str]) -> Vec<&'a str> {
    let files: Vec<String> = fs::read_dir(folder.join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let has = |name: &&&str| {
        let hex = HEXLOWER.encode(&built_component(name).digest);
        files.iter().any(|file| file.starts_with(&hex))
    };
    names.iter().filter(has).copied().collect()
}

#[tokio::test]
async fn disk_cache_eviction_spares_components_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let port = Arc::new(FakeCapabilities::default());
    let roles = [Role::Routing, Role::Chunking, Role::Progress];
    let names = roles.map(Role::name);
    let one = |role: Role| single_component_pipeline(&[role], &built_component(role.name()));
    let host = host_with_own_cache(folder.path(), |_| {});
    for role in roles {
        open_job(&host, &one(role), &port).await.unwrap();
    }
    assert_eq!(components_in_cache(folder.path(), &names), names);
    drop(host);
    // The next host must see that routing was used last, although it was compiled first.
    let host = host_with_own_cache(folder.path(), |_| {});
    open_job(&host, &one(Role::Routing), &port).await.unwrap();
    drop(host);

    let all: u64 = fs::read_dir(folder.path().join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let host = host_with_own_cache(folder.path(), |config| {
        config.max_cache_bytes = all - 1;
        config.max_loaded_components = 1;
    });
    assert_eq!(
        components_in_cache(folder.path(), &names),
        ["routing", "progress"]
    );
    // When chunking needs space, routing was used less recently than progress, but a job uses it.
    let job = open_job(&host, &one(Role::Routing), &port).await.unwrap();
    open_job(&host, &one(Role::Progress), &port).await.unwrap();
    open_job(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(
        components_in_cache(folder.path(), &names),
        ["routing", "chunking"]
    );
    assert_eq!(host.stats().compilations, 1);
    call_function(&job, "routing.page").await.unwrap();
}

#[tokio::test]
async fn memory_cache_eviction_spares_components_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let port = Arc::new(FakeCapabilities::default());
    let host = host_with_own_cache(folder.path(), |config| config.max_loaded_components = 2);
    let one = |role: Role| single_component_pipeline(&[role], &built_component(role.name()));
    for role in Role::ALL {
        open_job(&host, &one(role), &port).await.unwrap();
    }
    assert_eq!((host.stats().loaded_components, host.stats().cache_loads), (2, 4));
    // The last two components are in memory; the others must be loaded again.
    open_job(&host, &one(Role::Progress), &port).await.unwrap();
    open_job(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(host.stats().cache_loads, 4);
    open_job(&host, &one(Role::Routing), &port).await.unwrap();
    open_job(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(host.stats().cache_loads, 5);
    let mut jobs = Vec::new();
    for role in Role::ALL {
        jobs.push(open_job(&host, &one(role), &port).await.unwrap());
    }
    // Loading the first two components evicted the two that were in memory, so all four were loaded.
    assert_eq!((host.stats().loaded_components, host.stats().cache_loads), (4, 9));
    drop(jobs);
    open_job(
        &host,
        &pipeline_with_components("", &[(Role::Routing, "hostile-loop")]),
        &port,
    )
    .await
    .unwrap();
    assert_eq!(host.stats().compilations, 5);
}

#[tokio::test]
async fn compilation_is_limited_in_cpu_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.wasm");
    fs::write(&path, compile_bomb_component()).unwrap();
    let bomb = component_file(&path);
    let host = host_with_own_cache(folder.path(), |config| config.max_compile_cpu_seconds = 1);
    let reason = open_error(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 1 s of CPU"), "{reason}");
    let host = host_with_own_cache(folder.path(), |config| {
        config.max_compile_memory_bytes = 256 << 20
    });
    let reason = open_error(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 268435456 bytes"), "{reason}");
    assert_no_temporary_files(folder.path());
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let host = host_with_own_cache(folder.path(), |config| {
        config.compile_command = vec!["/nonexistent/weir".into()];
    });
    let reason = open_error(&host, &built_component("routing"), Role::Routing).await;
    assert!(reason.contains("its compiler cannot be started"), "{reason}");
}

#[tokio::test]
async fn a_compilation_is_killed_when_its_caller_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("pid");
    let host = host_with_own_cache(folder.path(), |config| {
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600",
            started.display()
        );
        config.compile_command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    });
    let (pipeline, port) = (
        single_component_pipeline(&[Role::Routing], &built_component("routing")),
        Arc::default(),
    );
    let pid = {
        let opening = open_job(&host, &pipeline, &port);
        let running = async {
            while !started.exists() {
                tokio::task::yield_now().await;
            }
            fs::read_to_string(&started).unwrap().trim().to_owned()
        };
        tokio::select! {
            _ = opening => panic!("the compilation must not end by itself"),
            pid = running => pid,
        }
    };
    // The process is gone or a zombie.
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::task::yield_now().await;
    }
    assert_no_temporary_files(folder.path());
}
