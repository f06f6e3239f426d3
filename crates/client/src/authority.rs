//! A small certificate authority for mutual TLS between engines and their clients: who has which certificate, and which
//! are revoked.
//!
//! Layout of its directory (0700):
//! ```text
//! authority.json       its name, and every certificate with serial number, end and revocation
//! ca.pem ca-key.pem    the authority's own
//! crl.pem              revoked certificates, written again with each revocation
//! NAME/                {ca,cert,key}.pem as Docker's clients and servers look for them; crl.pem for servers
//! ```
//! Keys are 0400, the rest 0600. The directory is locked (flock) while it changes; each file is written aside and moved
//! into place. Keys are made here and never leave but by copying the files.

use crate::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData as _, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
/// How long the authority itself lasts, in days.
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks differ: certificates begin so many seconds ago.
const EARLIER: i64 = 60 * 60;
/// Bytes of `authority.json`.
const RECORD_BYTES: u64 = 16 << 20;

/// What a certificate is for; used for the other it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// An engine's.
    Server,
    /// Somebody's who may do everything there.
    Client,
}

/// A certificate that was issued.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The name that it was issued to.
    pub name: String,
    /// What for.
    pub usage: Usage,
    /// Hexadecimal.
    pub serial: String,
    /// Its end, in seconds since 1970.
    pub expires: i64,
    /// Where its files were put.
    pub dir: PathBuf,
    /// When it was revoked, in seconds since 1970.
    pub revoked: Option<i64>,
}

/// What to issue.
#[derive(Clone, Debug)]
pub struct Order {
    /// To whom: the certificate's common name and its directory's.
    pub name: String,
    /// What for.
    pub usage: Usage,
    /// Host names and addresses of a server.
    pub hosts: Vec<String>,
    /// How long it is good, in days.
    pub days: i64,
    /// Where its files go; the authority's directory has them under its name otherwise.
    pub dir: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    created: i64,
    certificates: Vec<Issued>,
}

/// An open authority, locked.
pub struct Authority {
    dir: PathBuf,
    record: Record,
    key: KeyPair,
    _lock: File,
}

impl Authority {
    /// Makes a new authority. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// There is one already, or the directory cannot be written.
    pub fn create(dir: &Path, name: &str, now: i64) -> Result<Self> {
        make_dir(dir)?;
        let lock = lock(dir)?;
        if dir.join("ca-key.pem").exists() {
            return Err(Error::Options(format!("{}: there is an authority already", dir.display())));
        }
        let key = KeyPair::generate().map_err(|error| wrong(dir, &error))?;
        // Two authorities of one name must not be taken for each other.
        let name = format!("{name} {}", hex(&serial(&key)[..4]));
        let record = Record { name, created: now, certificates: Vec::new() };
        let authority = Self { dir: dir.to_owned(), record, key, _lock: lock };
        let certificate =
            authority.params()?.self_signed(&authority.key).map_err(|error| wrong(dir, &error))?;
        write(&dir.join("ca.pem"), certificate.pem().as_bytes(), 0o600)?;
        authority.save(now)?;
        // Last: with it the authority is there.
        write(&dir.join("ca-key.pem"), authority.key.serialize_pem().as_bytes(), 0o400)?;
        Ok(authority)
    }

    /// Opens the authority of a directory.
    ///
    /// # Errors
    /// There is none, or its files are damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let none = |error: &dyn std::fmt::Display| {
            Error::Options(format!("{}: no certificate authority: {error}", dir.display()))
        };
        let lock = lock(dir).map_err(|error| none(&error))?;
        let text = std::fs::read_to_string(dir.join("ca-key.pem")).map_err(|error| none(&error))?;
        let key = KeyPair::from_pem(&text).map_err(|error| wrong(&dir.join("ca-key.pem"), &error))?;
        let path = dir.join("authority.json");
        let meta = std::fs::metadata(&path).map_err(|error| none(&error))?;
        if meta.len() > RECORD_BYTES {
            return Err(wrong(&path, &"the file is too large"));
        }
        let bytes = std::fs::read(&path).map_err(|error| none(&error))?;
        let record = serde_json::from_slice(&bytes).map_err(|error| wrong(&path, &error))?;
        Ok(Self { dir: dir.to_owned(), record, key, _lock: lock })
    }

    /// Every certificate that was issued.
    pub fn issued(&self) -> &[Issued] {
        &self.record.certificates
    }

    /// Issues a certificate and writes its directory.
    ///
    /// # Errors
    /// The name is malformed or has a certificate, a host is malformed, or files cannot be written.
    pub fn issue(&mut self, order: &Order, now: i64) -> Result<&Issued> {
        let name = &order.name;
        if name.is_empty()
            || name.starts_with(['.', '-'])
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte))
        {
            return Err(Error::Options(format!(
                "invalid certificate name {name:?}: use letters, digits and _.-@"
            )));
        }
        if self.record.certificates.iter().any(|known| known.name == *name && known.revoked.is_none()) {
            return Err(Error::Options(format!(
                "{name} has a certificate already: revoke it first, or use another name"
            )));
        }
        let failed =
            |error: &dyn std::fmt::Display| Error::Options(format!("issue a certificate to {name}: {error}"));
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let serial = serial(&key);
        let expires = now.saturating_add(order.days.saturating_mul(DAY));
        let mut params = CertificateParams::new(order.hosts.clone()).map_err(|error| failed(&error))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.not_before = date(now - EARLIER).min(date(expires));
        params.not_after = date(expires);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match order.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let issuer = Issuer::new(self.params()?, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(|error| failed(&error))?;

        let dir = order.dir.clone().unwrap_or_else(|| self.dir.join(name));
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let holder =
            self.record.certificates.iter().find(|known| known.revoked.is_none() && known.dir == dir);
        if let Some(holder) = holder.filter(|_| dir.join("key.pem").exists()) {
            return Err(Error::Options(format!(
                "{}: the only key of {} is there: give another directory, or revoke {} first",
                dir.display(),
                holder.name,
                holder.name
            )));
        }
        make_dir(&dir)?;
        let authority = self.dir.join("ca.pem");
        let authority = std::fs::read(&authority).map_err(|error| wrong(&authority, &error))?;
        write(&dir.join("ca.pem"), &authority, 0o600)?;
        write(&dir.join("cert.pem"), certificate.pem().as_bytes(), 0o600)?;
        write(&dir.join("key.pem"), key.serialize_pem().as_bytes(), 0o400)?;
        let issued = Issued {
            name: name.clone(),
            usage: order.usage,
            serial: hex(&serial),
            expires,
            dir,
            revoked: None,
        };
        self.record.certificates.push(issued);
        self.save(now)?;
        self.record.certificates.last().ok_or_else(|| failed(&"it was not recorded"))
    }

    /// Revokes the certificate of a name, or the one with a serial number. Servers must read their files again (SIGHUP).
    ///
    /// # Errors
    /// There is none that is good.
    pub fn revoke(&mut self, name: &str, now: i64) -> Result<()> {
        let good =
            |known: &&mut Issued| known.revoked.is_none() && (known.name == name || known.serial == name);
        let found = self.record.certificates.iter_mut().find(good);
        let found = found
            .ok_or_else(|| Error::Options(format!("{name} has no certificate that could be revoked")))?;
        found.revoked = Some(now);
        self.save(now)
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params =
            CertificateParams::new(Vec::<String>::new()).map_err(|error| wrong(&self.dir, &error))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.record.name.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial(&self.key)));
        params.not_before = date(self.record.created - EARLIER);
        params.not_after = date(self.record.created + AUTHORITY_DAYS * DAY);
        Ok(params)
    }

    /// Writes the record and the list of revoked certificates, here and where servers look for it.
    fn save(&self, now: i64) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.record).map_err(|error| wrong(&self.dir, &error))?;
        write(&self.dir.join("authority.json"), &text, 0o600)?;
        let list = self.revocations(now)?;
        write(&self.dir.join("crl.pem"), list.as_bytes(), 0o600)?;
        let servers = self.record.certificates.iter().filter(|known| known.usage == Usage::Server);
        for server in servers.filter(|server| server.dir.is_dir()) {
            write(&server.dir.join("crl.pem"), list.as_bytes(), 0o600)?;
        }
        Ok(())
    }

    fn revocations(&self, now: i64) -> Result<String> {
        let revoked = self.record.certificates.iter().filter_map(|known| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes(&known.serial)),
                revocation_time: date(known.revoked?),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: date(now),
            next_update: date(self.record.created + AUTHORITY_DAYS * DAY),
            crl_number: SerialNumber::from(u64::try_from(now).unwrap_or_default()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::new(self.params()?, &self.key);
        let signed = list.signed_by(&issuer).and_then(|list| list.pem());
        signed.map_err(|error| wrong(&self.dir.join("crl.pem"), &error))
    }
}

/// 16 bytes of the public key's digest: as unique as the key. The first bit is clear, a serial number is positive.
fn serial(key: &KeyPair) -> [u8; 16] {
    let digest = sha2::Sha256::digest(key.der_bytes());
    let mut serial = [0; 16];
    serial.copy_from_slice(&digest[..16]);
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn date(seconds: i64) -> OffsetDateTime {
    // Years 1 to 9999: whatever is beyond is as good as for ever.
    OffsetDateTime::from_unix_timestamp(seconds.clamp(0, 253_370_764_800))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Options(format!("{}: {error}", path.display()))
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| wrong(dir, &error))
}

fn lock(dir: &Path) -> Result<File> {
    let file = File::open(dir).map_err(|error| wrong(dir, &error))?;
    file.lock().map_err(|error| wrong(dir, &error))?;
    Ok(file)
}

/// Writes a file aside and moves it into place.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let failed = |error: std::io::Error| wrong(path, &error);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let _ = std::fs::remove_file(&aside);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&aside).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&aside, path).map_err(failed)
}
