//! As whom, and over what, a replica speaks to etcd.

use convoy::storage::etcd::{
    EtcdStore,
    config::{EtcdConfig, EtcdTls, Password},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::{
    etcd::Cluster,
    replica::{Replica, config, itself},
};

/// A user who may read and write the prefix; authentication is on.
fn protect(cluster: &Cluster) {
    for step in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "convoy:first"],
        &["role", "add", "convoy"],
        &["role", "grant-permission", "convoy", "--prefix=true", "readwrite", "/convoy/"],
        &["user", "grant-role", "convoy", "convoy"],
        &["auth", "enable"],
    ] {
        // `root` has its role by itself in some versions.
        if let Err(error) = cluster.ctl(step) {
            assert!(step[1] == "grant-role", "{step:?}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_etcd_forgets_is_renewed() {
    let mut cluster = Cluster::start(1, &["--auth-token-ttl", "1"]);
    let open = config(cluster.endpoints());
    drop(Replica::open(&open).await);
    protect(&cluster);
    let file = cluster.directory().join("password");
    std::fs::write(&file, "first\n").expect("written");
    let config = EtcdConfig { user: Some("convoy".into()), password_file: Some(file.clone()), ..open.clone() };
    let mut replica = Replica::open(&config).await;
    for number in 1..4 {
        // Tokens are in the member's memory. The watch has to begin again with a new one as well.
        cluster.kill(0);
        cluster.revive(0);
        replica.insist(1, number).await;
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        replica.insist(2, number).await;
    }
    replica.is_live().await;
    replica.equals(&config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so_at_once() {
    let cluster = Cluster::start(1, &[]);
    let open = config(cluster.endpoints());
    drop(Replica::open(&open).await);
    protect(&cluster);
    let as_convoy = EtcdConfig { user: Some("convoy".into()), ..open.clone() };
    let with = |password: &str| EtcdConfig { password: Some(Password(password.into())), ..as_convoy.clone() };
    let missing = EtcdConfig { password_file: Some("/nowhere/password".into()), ..as_convoy.clone() };
    for (config, says) in [
        (open, "user name is empty"),
        (with("wrong"), "authentication failed"),
        (EtcdConfig { prefix: "/other/".into(), ..with("first") }, "permission denied"),
        (missing, "etcd.password_file"),
    ] {
        let asked = std::time::Instant::now();
        let error = EtcdStore::open(&config, "new", &itself()).await.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
        assert!(asked.elapsed().as_secs() < 5, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_both_sides_show_who_they_are() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: String| std::fs::write(path(name), text).expect("written");
    let mut authority = CertificateParams::new(Vec::new()).expect("valid");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    write("ca.pem", authority.self_signed(&ca_key).expect("signed").pem());
    let issuer = Issuer::new(authority, ca_key);
    for name in ["etcd", "convoy"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("valid");
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).expect("signed").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    let of = |name: &str| path(name).display().to_string();
    let cluster = Cluster::start_tls([&of("ca.pem"), &of("etcd.pem"), &of("etcd.key")]);
    let tls = EtcdTls { ca: path("ca.pem"), cert: Some(path("convoy.pem")), key: Some(path("convoy.key")) };
    let config = EtcdConfig { tls: Some(tls.clone()), ..config(cluster.endpoints()) };
    config.check(50).expect("valid");
    let mut replica = Replica::open(&config).await;
    replica.insist(1, 1).await;
    replica.equals(&config).await;

    let missing = EtcdConfig { tls: Some(EtcdTls { ca: path("no.pem"), ..tls }), ..config };
    let error = EtcdStore::open(&missing, "new", &itself()).await.expect_err("no file").to_string();
    assert!(error.contains("etcd.tls.ca"), "{error}");
}
