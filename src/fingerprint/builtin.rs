//! The rule files that are compiled into the program.
//!
//! A list rather than a build script: it is short, and a test holds it against the directory.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("rules/", $name), include_str!(concat!("../../rules/", $name)))),*]
    };
}

/// (file name, content), in the order of the names.
pub(super) const FILES: &[(&str, &str)] = files![
    "aiosmtpd.toml",
    "amavisd-new.toml",
    "amazon-ses.toml",
    "aol-mail.toml",
    "apache-james.toml",
    "applemailserver.toml",
    "argosoft-mail-server.toml",
    "axigen.toml",
    "barracuda-email-security-gateway.toml",
    "borderware-firewall.toml",
    "burp-collaborator.toml",
    "ccproxy.toml",
    "cellopoint-e-mail-firewall.toml",
    "chasquid.toml",
    "check-point-firewall-1.toml",
    "cisco.toml",
    "citadel.toml",
    "cloudflare-email.toml",
    "communigate-pro.toml",
    "coremail.toml",
    "courier.toml",
    "critical-path-messaging-server.toml",
    "davmail.toml",
    "domino.toml",
    "e-mailrelay.toml",
    "emailtopia-response-manager.toml",
    "eudora-internet-mail-server.toml",
    "exim.toml",
    "expurgate.toml",
    "families.toml",
    "firstclass.toml",
    "fortinet.toml",
    "gmx-1-1-nemesis.toml",
    "go-smtp-emersion.toml",
    "google.toml",
    "greenmail.toml",
    "gromox-grommunio.toml",
    "groupwise.toml",
    "haraka.toml",
    "hmailserver.toml",
    "ibm-vm-smtp.toml",
    "icewarp.toml",
    "ideasmtpserver.toml",
    "imail-server.toml",
    "inbucket.toml",
    "intermail-openwave-email-mx.toml",
    "intrastore-turbosendmail.toml",
    "kerio.toml",
    "kumomta.toml",
    "lyris-listmanager.toml",
    "mail-ru.toml",
    "mailcatcher.toml",
    "mailenable.toml",
    "mailgun.toml",
    "mailhog.toml",
    "maillennium.toml",
    "mailmarshal.toml",
    "mailpit.toml",
    "mailsite.toml",
    "mailslurper.toml",
    "mailsweeper.toml",
    "mandrill.toml",
    "masqmail.toml",
    "mcafee-webshield.toml",
    "mdaemon.toml",
    "mercury-mail-transport-system.toml",
    "microsoft.toml",
    "mimecast.toml",
    "mirapoint-message-server.toml",
    "momentum-ecelerity.toml",
    "nodemailer-smtp-server.toml",
    "not-mail.toml",
    "nplex.toml",
    "ntmail.toml",
    "openbsd-spamd.toml",
    "opensmtpd.toml",
    "oracle-messaging.toml",
    "pmdf.toml",
    "post-office.toml",
    "postal.toml",
    "postfix.toml",
    "powermta.toml",
    "proofpoint.toml",
    "python-smtpd.toml",
    "qmail.toml",
    "qpsmtpd.toml",
    "qq-mail.toml",
    "scalix.toml",
    "sendgrid.toml",
    "sendmail.toml",
    "slmail.toml",
    "smail.toml",
    "smartermail.toml",
    "smtpserver-net-cosullivan.toml",
    "socketlabs-hurricane-mta.toml",
    "sonicwall-email-security.toml",
    "sophos.toml",
    "stalker-internet-mail-server.toml",
    "stalwart.toml",
    "strongmail.toml",
    "subethasmtp.toml",
    "surgemail.toml",
    "symantec.toml",
    "synchronet.toml",
    "trend-micro.toml",
    "twisted-mail.toml",
    "unify-openscape-xpressions.toml",
    "visnetic-mailserver.toml",
    "vopmail.toml",
    "vpop3.toml",
    "winmail.toml",
    "winwebmail.toml",
    "xeams.toml",
    "xmail.toml",
    "yahoo-mail.toml",
    "yandex-mail.toml",
    "zimbra.toml",
    "zmailer.toml",
    "zoho-mail.toml",
    "zonemta.toml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_is_in_the_list() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
        let mut present: Vec<_> = std::fs::read_dir(directory)
            .expect("the directory of the rules")
            .map(|entry| {
                entry
                    .expect("a readable entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name.ends_with(".toml"))
            .map(|name| format!("rules/{name}"))
            .collect();
        present.sort();
        let listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(
            listed, present,
            "put every file of rules/ into builtin.rs, in order"
        );
    }
}
