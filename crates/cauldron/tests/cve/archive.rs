//! Archives and images as an attacker writes them: byte by byte.

use crate::Target;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A tar in the making; names, links and modes are written as they are.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// A member: `0` file, `1` hard link, `2` symbolic link, `5` directory.
    pub fn add(mut self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        assert!(name.len() <= 100 && link.len() <= 100, "{name} {link}");
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[136..147].copy_from_slice(b"00000000001");
        block[148..156].fill(b' ');
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(b'0', name, "", 0o644, data)
    }
    pub fn dir(self, name: &str) -> Self {
        self.add(b'5', name, "", 0o755, b"")
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        self.add(b'2', name, target, 0o777, b"")
    }
    pub fn hard(self, name: &str, target: &str) -> Self {
        self.add(b'1', name, target, 0o777, b"")
    }
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

impl Target {
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }
    /// The digest of a file, as hexadecimal digits.
    pub fn sha256(&self, bytes: &[u8]) -> String {
        let path = self.write("hashed", bytes);
        let output = Command::new("sha256sum").arg(path).output().unwrap().stdout;
        String::from_utf8(output[..64].to_vec()).unwrap()
    }
    /// An archive of `docker save`'s with these layers.
    pub fn saved(&self, tag: &str, config: Value, layers: &[Vec<u8>]) -> PathBuf {
        let digests: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", self.sha256(layer))).collect();
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
        let manifest = json!([{ "Config": "c.json", "RepoTags": [tag], "Layers": names }]);
        let mut tar = Tar::default().file("c.json", document.to_string().as_bytes());
        for (name, layer) in names.iter().zip(layers) {
            tar = tar.file(name, layer);
        }
        let tar = tar.file("manifest.json", manifest.to_string().as_bytes());
        self.write("saved.tar", &tar.end()).into()
    }
    /// Loads busybox's files as an image with this configuration.
    pub fn image(&self, tag: &str, config: Value) {
        let layer = fs::read(self.0.join("busybox.tar")).unwrap();
        let archive = self.saved(tag, config, &[layer]);
        self.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    }
    /// An OCI layout: documents by digest, and the index.
    pub fn layout(&self, index: &Value, blobs: &[Vec<u8>]) -> String {
        let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in blobs {
            tar = tar.file(&format!("blobs/sha256/{}", self.sha256(blob)), blob);
        }
        self.write("layout.tar", &tar.file("index.json", index.to_string().as_bytes()).end())
    }
}
