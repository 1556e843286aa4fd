//! Components that cannot be used, and how often one that can is compiled.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_core::manifest::{Capability, ComponentFile, Role};
use weir_core::{JobId, PolicyError, TenantId};
use weir_policy::{PolicyConfig, PolicyHost};

use crate::asking::ask;
use crate::bomb::bomb;
use crate::support::*;

/// A host with a cache of its own.
fn fresh(folder: &Path, change: impl FnOnce(&mut PolicyConfig)) -> Arc<PolicyHost> {
    let mut config = config();
    config.cache = folder.join("compiled");
    change(&mut config);
    PolicyHost::new(config).unwrap()
}

/// Why a component cannot be opened.
async fn refusal(host: &PolicyHost, component: &ComponentFile, role: Role) -> String {
    match open(host, &only(&[role], component), &Arc::new(Port::default())).await {
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
async fn an_import_that_is_not_granted_is_named() {
    let host = host();
    for (name, grant) in [
        ("state", Capability::State),
        ("rasterizer", Capability::Rasterizer),
        ("inference", Capability::Inference),
    ] {
        let component = component(&format!("hostile-{name}"));
        let reason = refusal(&host, &component, Role::Routing).await;
        assert!(
            reason.contains(&format!("weir:pipeline/{name}@0.1.0")),
            "{reason}"
        );
        assert!(
            reason.contains(&format!("add \"{name}\" to [capabilities] grant")),
            "{reason}"
        );

        let mut granted = only(&[Role::Routing], &component);
        granted.manifest.capabilities.grant = vec![grant];
        let port = Arc::new(Port::default());
        let job = open(&host, &granted, &port).await.unwrap();
        ask(&job, "routing.page").await.unwrap();
        assert_eq!(
            port.generated.load(Ordering::Relaxed),
            usize::from(name == "inference")
        );
    }
}

#[tokio::test]
async fn state_lasts_from_job_to_job_for_one_tenant() {
    let state = Arc::new(MemoryState::default());
    let mut config = config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = only(&[Role::Routing], &component("hostile-state"));
    pipeline.manifest.capabilities.grant = vec![Capability::State];
    let (one, two): (TenantId, TenantId) = ("one".parse().unwrap(), "two".parse().unwrap());
    for tenant in [&one, &one, &two] {
        let job = host
            .open_job(weir_core::ports::PolicyRequest {
                tenant,
                job: JobId::new(),
                pipeline: &pipeline,
                capabilities: Arc::new(Port::default()),
            })
            .await
            .unwrap();
        ask(&job, "routing.page").await.unwrap();
    }
    assert_eq!(
        state.applied.load(Ordering::Relaxed),
        3,
        "one transaction for each call"
    );
    let values = state.values.lock();
    let value = |tenant: &TenantId| values[&(tenant.clone(), "test".into(), "calls".into())].len();
    assert_eq!((value(&one), value(&two)), (2, 1));
}

/// It fills the state, and traps when a value is refused.
#[tokio::test]
async fn a_call_that_traps_leaves_no_state() {
    let state = Arc::new(MemoryState::default());
    let mut config = config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = only(&[Role::Routing], &component("hostile-later"));
    pipeline.manifest.capabilities.grant = vec![Capability::State, Capability::Inference];
    pipeline.manifest.settings.insert("attack".into(), "state".into());
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
    ask(&job, "routing.page").await.unwrap();
    let error = ask(&job, "routing.page").await.unwrap_err();
    assert!(
        error.to_string().contains("1048576 bytes: delete some"),
        "{error}"
    );
    assert!(state.values.lock().is_empty());
    assert_eq!(state.applied.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_not_a_component_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let host = fresh(folder.path(), |_| {});
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        file(&path)
    };
    let whole = fs::read(component("routing").path).unwrap();
    for (file, word) in [
        (write("empty.wasm", b""), "unexpected end"),
        (write("text.wasm", b"hello, this is no WebAssembly"), "magic"),
        (write("module.wasm", b"\0asm\x01\0\0\0"), "module"),
        (write("cut.wasm", &whole[..whole.len() / 2]), ""),
    ] {
        let reason = refusal(&host, &file, Role::Routing).await;
        assert!(reason.to_lowercase().contains(word), "{}: {reason}", file.name);
    }
    let missing = ComponentFile {
        name: "missing".into(),
        path: folder.path().join("missing.wasm"),
        digest: [0; 32],
    };
    assert!(
        refusal(&host, &missing, Role::Routing)
            .await
            .contains("cannot be read")
    );
    let changed = write("changed.wasm", &whole);
    fs::write(&changed.path, b"something else").unwrap();
    assert!(
        refusal(&host, &changed, Role::Routing)
            .await
            .contains("has changed")
    );
    assert_leaves_nothing(folder.path());
}

/// No temporary file stays behind.
fn assert_leaves_nothing(folder: &Path) {
    for entry in fs::read_dir(folder.join("compiled")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".cwasm"), "{name}");
    }
}

#[tokio::test]
async fn a_component_without_the_role_is_said() {
    let reason = refusal(&host(), &component("routing"), Role::Batching).await;
    assert!(
        reason.contains("does not export weir:pipeline/batching@0.1.0")
            && reason.contains("exports weir:pipeline/routing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = only(&[Role::Routing], &component("routing"));
    let port = Arc::new(Port::default());
    let host = fresh(folder.path(), |_| {});
    // Four at once wait for one compilation.
    let opened = futures::future::join_all((0..4).map(|_| open(&host, &pipeline, &port))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!((host.stats().compilations, host.stats().loads), (1, 1));
    drop((opened, host));

    // Another process finds it on disk.
    let host = fresh(folder.path(), |_| {});
    open(&host, &pipeline, &port).await.unwrap();
    assert_eq!((host.stats().compilations, host.stats().loads), (0, 1));
    drop(host);

    // A damaged file counts as none, wherever the damage is.
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
        let host = fresh(folder.path(), |_| {});
        open(&host, &pipeline, &port).await.unwrap();
        assert_eq!((host.stats().compilations, host.stats().loads), (1, 1));
    }
    assert_leaves_nothing(folder.path());
}

#[tokio::test]
async fn what_was_whole_and_is_written_to_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let host = fresh(folder.path(), |config| config.loaded_components = 1);
    let port = Arc::new(Port::default());
    let [one, other] = [Role::Routing, Role::Batching].map(|role| only(&[role], &component(role.name())));
    open(&host, &one, &port).await.unwrap();
    let compiled = fs::read_dir(folder.path().join("compiled")).unwrap().next();
    let path = compiled.unwrap().unwrap().path();
    // Out of memory, and in again.
    for pipeline in [&other, &one, &other] {
        open(&host, pipeline, &port).await.unwrap();
    }
    assert_eq!((host.stats().compilations, host.stats().loads), (2, 4));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    open(&host, &one, &port).await.unwrap();
    assert_eq!((host.stats().compilations, host.stats().loads), (3, 5));
}

/// Which of these components are in a folder of compiled ones.
fn compiled<'a>(folder: &Path, names: &[&'a str]) -> Vec<&'a str> {
    let files: Vec<String> = fs::read_dir(folder.join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let has = |name: &&&str| {
        let digest = component(name).digest;
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        files.iter().any(|file| file.starts_with(&hex))
    };
    names.iter().filter(has).copied().collect()
}

#[tokio::test]
async fn compiled_code_makes_room_for_other_code_but_not_what_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let port = Arc::new(Port::default());
    let roles = [Role::Routing, Role::Chunking, Role::Progress];
    let names = roles.map(Role::name);
    let one = |role: Role| only(&[role], &component(role.name()));
    let host = fresh(folder.path(), |_| {});
    for role in roles {
        open(&host, &one(role), &port).await.unwrap();
    }
    assert_eq!(compiled(folder.path(), &names), names);
    drop(host);
    // What was used last is what is used first, as far as another process can know.
    let host = fresh(folder.path(), |_| {});
    open(&host, &one(Role::Routing), &port).await.unwrap();
    drop(host);

    let all: u64 = fs::read_dir(folder.path().join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let host = fresh(folder.path(), |config| {
        config.cache_bytes = all - 1;
        config.loaded_components = 1;
    });
    assert_eq!(compiled(folder.path(), &names), ["routing", "progress"]);
    // Routing has been used longer ago than progress when room is needed again, but a job is at it.
    let job = open(&host, &one(Role::Routing), &port).await.unwrap();
    open(&host, &one(Role::Progress), &port).await.unwrap();
    open(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(compiled(folder.path(), &names), ["routing", "chunking"]);
    assert_eq!(host.stats().compilations, 1);
    ask(&job, "routing.page").await.unwrap();
}

#[tokio::test]
async fn so_many_components_stay_in_memory_and_those_in_use_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let port = Arc::new(Port::default());
    let host = fresh(folder.path(), |config| config.loaded_components = 2);
    let one = |role: Role| only(&[role], &component(role.name()));
    for role in Role::ALL {
        open(&host, &one(role), &port).await.unwrap();
    }
    assert_eq!((host.stats().loaded, host.stats().loads), (2, 4));
    // The last two are there, the others are loaded again.
    open(&host, &one(Role::Progress), &port).await.unwrap();
    open(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(host.stats().loads, 4);
    open(&host, &one(Role::Routing), &port).await.unwrap();
    open(&host, &one(Role::Chunking), &port).await.unwrap();
    assert_eq!(host.stats().loads, 5);
    let mut jobs = Vec::new();
    for role in Role::ALL {
        jobs.push(open(&host, &one(role), &port).await.unwrap());
    }
    // Two were there when the first was loaded, and had to go for it and for the second.
    assert_eq!((host.stats().loaded, host.stats().loads), (4, 9));
    drop(jobs);
    open(&host, &pipeline("", &[(Role::Routing, "hostile-loop")]), &port)
        .await
        .unwrap();
    assert_eq!(host.stats().compilations, 5);
}

#[tokio::test]
async fn compiling_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.wasm");
    fs::write(&path, bomb()).unwrap();
    let bomb = file(&path);
    let host = fresh(folder.path(), |config| config.compile_seconds = 1);
    let reason = refusal(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 1 s of CPU"), "{reason}");
    let host = fresh(folder.path(), |config| config.compile_bytes = 256 << 20);
    let reason = refusal(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 268435456 bytes"), "{reason}");
    assert_leaves_nothing(folder.path());
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let host = fresh(folder.path(), |config| {
        config.compile_command = vec!["/nonexistent/weir".into()];
    });
    let reason = refusal(&host, &component("routing"), Role::Routing).await;
    assert!(reason.contains("its compiler cannot be started"), "{reason}");
}

#[tokio::test]
async fn a_compilation_nobody_waits_for_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("pid");
    let host = fresh(folder.path(), |config| {
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600",
            started.display()
        );
        config.compile_command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    });
    let (pipeline, port) = (only(&[Role::Routing], &component("routing")), Arc::default());
    let pid = {
        let opening = open(&host, &pipeline, &port);
        let running = async {
            while !started.exists() {
                tokio::task::yield_now().await;
            }
            fs::read_to_string(&started).unwrap().trim().to_owned()
        };
        tokio::select! {
            _ = opening => panic!("it cannot have ended"),
            pid = running => pid,
        }
    };
    // Gone, or at most waiting to be reaped.
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::task::yield_now().await;
    }
    assert_leaves_nothing(folder.path());
}
