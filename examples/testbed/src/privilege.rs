//! The right to make network namespaces: as root, or as anybody in a user namespace of their own.

use std::fs;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};

use crate::{Step, WorldError};

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;

/// How this process got the right to make namespaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Privilege {
    /// It has the capabilities on the machine.
    Root,
    /// It is root in a user namespace of its own and nobody outside.
    UserNamespace,
}

/// Obtains the right to make network namespaces.
///
/// Call it first in `main`: the kernel lets only a process with a single thread make a user
/// namespace. Calling it again in a process that has the right changes nothing.
///
/// # Errors
///
/// Fails where the process is neither root nor allowed to make a user namespace in which it has
/// capabilities; the error names what the kernel refused.
pub fn obtain() -> Result<Privilege, WorldError> {
    if has_capabilities()? {
        return Ok(Privilege::Root);
    }
    enter_user_namespace()?;
    // Some distributions allow the namespace and take its capabilities away.
    unshare(CloneFlags::CLONE_NEWNET).step(
        "make a network namespace in an unprivileged user namespace (run as root, or allow it: \
         sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
    )?;
    Ok(Privilege::UserNamespace)
}

fn enter_user_namespace() -> Result<(), WorldError> {
    let (uid, gid) = (Uid::current(), Gid::current());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step(
        "make a user namespace without being root (run as root, or allow it: sysctl \
         user.max_user_namespaces, kernel.unprivileged_userns_clone)",
    )?;
    // user_namespaces(7): a group map may be written only after setgroups is denied.
    fs::write("/proc/self/setgroups", "deny").step("deny setgroups in the user namespace")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).step("map the own user to root")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).step("map the own group to root")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .step("keep mounts private")
}

fn has_capabilities() -> Result<bool, WorldError> {
    let status = fs::read_to_string("/proc/self/status").step("read the own capabilities")?;
    let needed = (1 << CAP_NET_ADMIN) | (1 << CAP_NET_RAW) | (1 << CAP_SYS_ADMIN);
    Ok(effective(&status).is_some_and(|held| held & needed == needed))
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read_from_the_status_file() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(
            effective("Name:\tx\nCapEff:\t0000000000201000\n"),
            Some(0x20_1000)
        );
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
