//! The process as an operator meets it: each refusal is one sentence with an exit code of its own,
//! and a stop by signal is a good one.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use corelog_broker::fatal::FatalReason;

fn corelogd(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelogd"));
    command.arg("--config").arg(config).args(["--log-level", "warn"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory on a real file system, or `None` with a line that says why the test is skipped.
fn real_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
    if let Some(reason) = facts.direct_io_error {
        println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
        return None;
    }
    Some(directory)
}

/// A configuration with these lines and a data directory beside it.
fn write_config(directory: &Path, lines: &str) -> std::path::PathBuf {
    let path = directory.join("corelogd.toml");
    let data = directory.join("data");
    let mut text = String::from(lines);
    // Tables come last in TOML: what is at the top goes first.
    if !lines.contains("data =") {
        text = format!("data = [{:?}]\n{text}", data.display().to_string());
    }
    if !lines.contains("listen =") {
        text = format!("listen = \"127.0.0.1:0\"\n{text}");
    }
    if !lines.contains("shards =") {
        text = format!("shards = 1\n{text}");
    }
    if !lines.contains("free_bytes_min =") {
        text = format!("free_bytes_min = 0\n{text}");
    }
    std::fs::write(&path, text).expect("written");
    path
}

/// The one sentence, if the exit code is that of `reason`.
fn refusal(output: &Output, reason: FatalReason) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(reason.exit_code()), "{text}");
    let sentence = text.lines().last().unwrap_or_default().to_owned();
    assert_eq!(text.lines().count(), 1, "one sentence and nothing else: {text}");
    assert!(sentence.ends_with('.') || sentence.ends_with('?'), "{sentence}");
    sentence
}

fn refused(lines: &str, reason: FatalReason) -> Option<String> {
    let directory = real_directory()?;
    let config = write_config(directory.path(), lines);
    let output = corelogd(&config).output().expect("it runs");
    Some(refusal(&output, reason))
}

fn started(config: &Path) -> (Child, String) {
    let mut child = corelogd(config).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("corelogd listens on 127.0.0.1:"), "{line}");
    (child, line)
}

#[test]
fn a_wrong_setting_is_refused_with_the_nearest_known_one() {
    let Some(sentence) = refused("lisen = \"127.0.0.1:0\"", FatalReason::Config) else { return };
    assert_eq!(sentence, "Unknown setting `lisen`: did you mean `listen`?");
}

#[test]
fn environment_variables_go_over_the_file_and_a_near_miss_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), "listen = \"nowhere\"");
    let check = |name: &str, value: &str| {
        corelogd(&config).arg("--check-config").env(name, value).output().expect("it runs")
    };
    assert!(!check("CORELOG_SHARDS", "1").status.success(), "the file alone is wrong");
    assert!(check("CORELOG_LISTEN", "127.0.0.1:0").status.success());
    let sentence = refusal(&check("CORELOG_LISEN", "127.0.0.1:0"), FatalReason::Config);
    assert_eq!(sentence, "Unknown variable `CORELOG_LISEN`: did you mean `CORELOG_LISTEN`?");
    let options = ["--listen", "127.0.0.1:0", "--data", "elsewhere", "--check-config"];
    let output = corelogd(&config).args(options).env("CORELOG_LISTEN", "127.0.0.1:1").output();
    assert!(output.expect("it runs").status.success());
}

#[test]
fn check_config_starts_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), "");
    let output = corelogd(&config).arg("--check-config").output().expect("it runs");
    assert!(output.status.success());
    assert!(!directory.path().join("data").exists());
}

#[test]
fn more_shards_than_cores_are_refused() {
    let Some(sentence) = refused("shards = 1000", FatalReason::Cores) else { return };
    assert!(sentence.starts_with("1000 shards need 1000 cores"), "{sentence}");
}

#[test]
fn too_little_room_is_refused() {
    let Some(sentence) = refused("free_bytes_min = 9000000000000000000", FatalReason::DiskFull)
    else {
        return;
    };
    assert!(sentence.contains("`free_bytes_min`"), "{sentence}");
}

#[test]
fn a_directory_in_memory_is_refused() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() || corelog_tuning::DirectoryFacts::gather(shm).file_system != "tmpfs" {
        println!("skipped: /dev/shm is no tmpfs here");
        return;
    }
    let data = tempfile::tempdir_in(shm).expect("a directory");
    let lines = format!("data = [{:?}]", data.path().display().to_string());
    let Some(sentence) = refused(&lines, FatalReason::DirectIo) else { return };
    assert!(sentence.contains("put the data on ext4 or XFS"), "{sentence}");
}

#[test]
fn a_taken_port_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let lines = format!("listen = \"{}\"", taken.local_addr().expect("bound"));
    let Some(sentence) = refused(&lines, FatalReason::Listen) else { return };
    assert!(sentence.contains("is taken by another process"), "{sentence}");
}

#[test]
fn too_little_locked_memory_is_refused() {
    let Some(directory) = real_directory() else { return };
    let config = write_config(directory.path(), "");
    let mut command = corelogd(&config);
    // SAFETY: between fork and exec, one system call that allocates nothing.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
            match libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let sentence = refusal(&command.output().expect("it runs"), FatalReason::Memlock);
    assert!(sentence.contains("LimitMEMLOCK=infinity"), "{sentence}");
}

#[test]
fn a_host_without_io_uring_is_refused() {
    let Some(directory) = real_directory() else { return };
    let config = write_config(directory.path(), "");
    let mut command = corelogd(&config);
    // SAFETY: between fork and exec, two system calls that allocate nothing.
    unsafe { command.pre_exec(forbid_io_uring) };
    let sentence = refusal(&command.output().expect("it runs"), FatalReason::IoUring);
    assert!(sentence.contains("kernel.io_uring_disabled=0"), "{sentence}");
}

/// Makes `io_uring_setup` fail with EPERM from now on, as a container's profile would.
fn forbid_io_uring() -> std::io::Result<()> {
    const LOAD_CALL_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(LOAD_CALL_NUMBER, 0, 0, 0),
        line(JUMP_IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is four valid instructions and outlives the call.
    let results = unsafe {
        (
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program),
        )
    };
    if results == (0, 0) { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn directories_in_use_foreign_newer_or_damaged_are_refused_and_a_signal_stops_well() {
    let Some(directory) = real_directory() else { return };
    let config = write_config(directory.path(), "");
    let (mut child, _line) = started(&config);

    let output = corelogd(&config).output().expect("it runs");
    let sentence = refusal(&output, FatalReason::DirectoryInUse);
    assert!(sentence.contains("is in use by another broker process"), "{sentence}");

    // SAFETY: the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    assert!(child.wait().expect("it ends").success());

    let other = "[cluster]\nid = \"0123456789abcdef0123456789abcdef\"";
    let foreign = write_config(directory.path(), other);
    let output = corelogd(&foreign).output().expect("it runs");
    let sentence = refusal(&output, FatalReason::ForeignDirectory);
    assert!(sentence.contains("cluster 0123456789abcdef0123456789abcdef"), "{sentence}");
    let config = write_config(directory.path(), "");

    let meta = directory.path().join("data/corelog.meta");
    let good = std::fs::read(&meta).expect("an identity");
    let mut newer = good.clone();
    for block in newer.chunks_exact_mut(4096) {
        block[8] += 1;
        block[12..16].fill(0);
        let crc = crc32c::crc32c(block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&meta, &newer).expect("written");
    let output = corelogd(&config).output().expect("it runs");
    let sentence = refusal(&output, FatalReason::OtherFormat);
    assert!(sentence.contains("start the version that wrote it"), "{sentence}");

    std::fs::write(&meta, vec![0; 8192]).expect("written");
    let output = corelogd(&config).output().expect("it runs");
    refusal(&output, FatalReason::IdentityDamaged);

    std::fs::write(&meta, &good).expect("written");
    let (mut child, _line) = started(&config);
    // SAFETY: the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    assert!(child.wait().expect("it ends").success());
}
