//! What the smaller kinds may say, and what of them may change: data against complaints.

use orch_api::kinds::strategy;
use serde_json::{Value, json};

use super::{complaints, created, lines, yaml};

#[track_caller]
fn check(group: &str, plural: &str, text: &str, wanted: &[&str]) {
    assert_eq!(complaints(group, plural, text), wanted.join("\n"), "{text}");
}

#[track_caller]
fn check_update(group: &str, plural: &str, old: &str, new: &str, wanted: &[&str]) {
    let of = strategy(group, plural);
    let (old, new) = (created(of, yaml(old)), created(of, yaml(new)));
    assert_eq!(lines(&of.validate_update(&new, &old)), wanted.join("\n"), "{new}");
}

#[test]
fn flow_schemas() {
    let check = |text: &str, wanted: &[&str]| {
        check("flowcontrol.apiserver.k8s.io", "flowschemas", text, wanted);
    };
    let rest = "priorityLevelConfiguration: {name: p}";
    check(&format!("spec: {{{rest}}}"), &[]);
    check(
        "spec: {}",
        &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
    );
    for (number, why) in [
        ("-1", "must be a positive value"),
        ("10001", "must not be greater than 10000"),
        ("1", "only the schema named 'exempt' may have matchingPrecedence 1"),
    ] {
        let wanted = format!("spec.matchingPrecedence: Invalid value: {number}: {why}");
        check(&format!("spec: {{matchingPrecedence: {number}, {rest}}}"), &[&wanted]);
    }
    check(
        &format!("spec: {{{rest}, distinguisherMethod: {{type: ByMood}}}}"),
        &[
            "spec.distinguisherMethod.type: Unsupported value: \"ByMood\": supported values: \"ByNamespace\", \"ByUser\"",
        ],
    );
    check(
        &format!("spec: {{{rest}, rules: [{{}}]}}"),
        &[
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    let rule = |subject: &str, rules: &str| {
        format!("spec: {{{rest}, rules: [{{subjects: [{subject}], {rules}}}]}}")
    };
    let user = "{kind: User, user: {name: u}}";
    let paths = "nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]";
    check(&rule(user, paths), &[]);
    check(
        &rule("{kind: Group, user: {name: u}}", paths),
        &[
            "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
        ],
    );
    check(
        &rule("{kind: ServiceAccount, serviceAccount: {name: a}}", paths),
        &[
            "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
        ],
    );
    for (path, why) in [
        ("a", "must start with slash"),
        ("/a//b", "must not contain double slash"),
        ("/a*", "wildcard can only do suffix matching"),
    ] {
        let rules = format!("nonResourceRules: [{{verbs: [get], nonResourceURLs: ['{path}']}}]");
        let wanted = format!(
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"{path}\": {why}"
        );
        check(&rule(user, &rules), &[&wanted]);
    }
    let rules = "resourceRules: [{verbs: ['*', get], apiGroups: [''], resources: [pods]}]";
    check(
        &rule(user, rules),
        &[
            "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ],
    );
}

#[test]
fn priority_levels() {
    let check = |text: &str, wanted: &[&str]| {
        check("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", text, wanted);
    };
    let queue = |queuing: &str| {
        format!(
            "spec: {{type: Limited, limited: {{limitResponse: {{type: Queue, queuing: {queuing}}}}}}}"
        )
    };
    check(&queue("{queues: 64, handSize: 8, queueLengthLimit: 50}"), &[]);
    check(
        "spec: {type: Limited}",
        &["spec.limited: Required value: must not be empty when type is Limited"],
    );
    check(
        "spec: {type: Exempt}",
        &[
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
        ],
    );
    check(
        &queue("{queues: 4, handSize: 8}"),
        &[
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)",
        ],
    );
    check(
        &queue("{queues: 1024, handSize: 8}"),
        &[
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 1024 and handSize 8 should not be greater than 60",
        ],
    );
    let limited = "limitResponse: {type: Reject}, lendablePercent: 101, borrowingLimitPercent: -1";
    check(
        &format!("spec: {{type: Limited, limited: {{{limited}}}}}"),
        &[
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
}

#[test]
fn autoscalers() {
    let check = |more: &str, wanted: &[&str]| {
        let target = "scaleTargetRef: {kind: Deployment, name: d}, maxReplicas: 3";
        let text = format!("spec: {{{target}, {more}}}");
        check("autoscaling", "horizontalpodautoscalers", &text, wanted);
    };
    check("minReplicas: 2", &[]);
    check(
        "minReplicas: 4",
        &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
    );
    check(
        "metrics: [{type: Odd}]",
        &[
            "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
        ],
    );
    check(
        "metrics: [{type: Resource}]",
        &[
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ],
    );
    let cpu = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}";
    check(&format!("metrics: [{cpu}]"), &[]);
    check(
        "metrics: [{type: Resource, resource: {target: {type: Utilization}}}]",
        &[
            "spec.metrics[0].resource.name: Required value: must specify a resource name",
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ],
    );
    check(
        "metrics: [{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue}}}]",
        &[
            "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
        ],
    );
    check(
        "metrics: [{type: External, external: {metric: {name: m}, target: {type: Value, value: '0'}}}]",
        &["spec.metrics[0].external.target.value: Invalid value: \"0\": must be positive"],
    );
    check(
        "behavior: {scaleUp: {stabilizationWindowSeconds: 3601}}",
        &[
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ],
    );
    check(
        "behavior: {scaleDown: {policies: [{type: Pods, value: 0, periodSeconds: 1801}]}}",
        &[
            "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ],
    );
}

#[test]
fn drivers_and_what_they_tell() {
    let group = "storage.k8s.io";
    check(group, "csidrivers", "{metadata: {name: a.b}, spec: {}}", &[]);
    check(
        group,
        "csidrivers",
        "spec: {fsGroupPolicy: Odd, volumeLifecycleModes: [Often]}",
        &[
            "spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.volumeLifecycleModes: Unsupported value: \"Often\": supported values: \"Ephemeral\", \"Persistent\"",
        ],
    );
    check(
        group,
        "csidrivers",
        "spec: {tokenRequests: [{audience: a, expirationSeconds: 5}, {audience: a}]}",
        &[
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
        ],
    );
    check_update(
        group,
        "csidrivers",
        "spec: {}",
        "spec: {attachRequired: false, podInfoOnMount: true}",
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
    check(
        group,
        "csinodes",
        "spec: {drivers: [{name: a, nodeID: n1}, {name: a}]}",
        &["spec.drivers[1].name: Duplicate value: \"a\"", "spec.drivers[1].nodeID: Required value"],
    );
    check(group, "csistoragecapacities", "storageClassName: fast", &[]);
    check(group, "csistoragecapacities", "{}", &["storageClassName: Required value"]);
    check_update(
        group,
        "csistoragecapacities",
        "storageClassName: a",
        "storageClassName: b",
        &["storageClassName: Invalid value: \"b\": field is immutable"],
    );
    let attachment =
        |source: &str| format!("spec: {{attacher: a, nodeName: n1, source: {{{source}}}}}");
    check(group, "volumeattachments", &attachment("persistentVolumeName: v"), &[]);
    check(
        group,
        "volumeattachments",
        &attachment(""),
        &[
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ],
    );
}

#[test]
fn network_policies() {
    let check = |rule: &str, wanted: &[&str]| {
        let text = format!("spec: {{podSelector: {{}}, egress: [{{{rule}}}]}}");
        check("networking.k8s.io", "networkpolicies", &text, wanted);
    };
    check("ports: [{port: 80, endPort: 90}]", &[]);
    check(
        "ports: [{port: 80, endPort: 70}]",
        &[
            "spec.egress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
        ],
    );
    check(
        "ports: [{port: http, endPort: 90}]",
        &[
            "spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
        ],
    );
    check(
        "ports: [{endPort: 90}]",
        &[
            "spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is not specified",
        ],
    );
    check("to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]", &[]);
    check(
        "to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, 10.0.0.0/8]}}]",
        &[
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
        ],
    );
}

#[test]
fn leases_and_runtime_classes() {
    check(
        "coordination.k8s.io",
        "leases",
        "spec: {preferredHolder: a}",
        &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
    );
    check(
        "node.k8s.io",
        "runtimeclasses",
        "{handler: h, scheduling: {nodeSelector: {a b: c}}}",
        &[
            "scheduling.nodeSelector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
}

#[test]
fn selectors_of_devices_are_compiled() {
    let check = |expression: &str, wanted: &str| {
        let selectors = json!([{"cel": {"expression": expression}}]);
        let path = "cel.expression";
        let class = json!({"spec": {"selectors": selectors}}).to_string();
        let at = |field: &str| match wanted {
            "" => Vec::new(),
            wanted => vec![format!("{field}.selectors[0].{path}: {wanted}")],
        };
        let check = |plural: &str, text: &str, wanted: Vec<String>| {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            check("resource.k8s.io", plural, text, &wanted);
        };
        check("deviceclasses", &class, at("spec"));
        let exactly = json!({"deviceClassName": "c", "selectors": selectors});
        let claim = json!({"devices": {"requests": [{"name": "a", "exactly": exactly}]}});
        let field = "spec.devices.requests[0].exactly";
        check("resourceclaims", &json!({"spec": claim}).to_string(), at(field));
        let template = json!({"spec": {"spec": claim}}).to_string();
        check("resourceclaimtemplates", &template, at(&format!("spec.{field}")));
    };
    check("device.driver == 'd'", "");
    check("1", "Invalid value: \"1\": must evaluate to bool or the unknown type, not int");
    let digits = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    let nested = ["a", "b", "c", "d", "e", "f", "g"].iter().rev();
    let nested = nested.fold("int('1'.find('[0-9]*')) < 100".to_owned(), |inner, variable| {
        format!("{digits}.all({variable}, {inner})")
    });
    check(&nested, "Forbidden: too complex, exceeds cost limit");
    let long = format!("device.driver == '{}'", "x".repeat(10 * 1024));
    check(&long, "Too long: may not be more than 10240 bytes");
}

#[test]
fn classes_name_extended_resources() {
    let check = |resource: &str, wanted: &[&str]| {
        let text = format!("spec: {{extendedResourceName: {resource}}}");
        check("resource.k8s.io", "deviceclasses", &text, wanted);
    };
    check("example.com/gpu", &[]);
    let refused = |resource: &str| {
        let why = "must be a valid extended resource name";
        let line = format!("spec.extendedResourceName: Invalid value: \"{resource}\": {why}");
        check(&format!("'{resource}'"), &[&line]);
    };
    refused("");
    refused("gpu");
    refused("example.com/a/b");
    refused("requests.example.com/gpu");
    refused("deviceclass.resource.kubernetes.io/gpu");
}

#[test]
fn pods_tell_of_the_claim_for_their_extended_resources() {
    let of = strategy("", "pods");
    let container = "containers: [{name: c, image: i, resources: {limits: {example.com/gpu: 1}}}]";
    let old = created(of, yaml(&format!("{{metadata: {{name: p}}, spec: {{{container}}}}}")));
    let check = |claim: Value, wanted: &[&str]| {
        let mut new = old.clone();
        new["status"]["extendedResourceClaimStatus"] = claim.clone();
        assert_eq!(lines(&of.validate_status_update(&new, &old)), wanted.join("\n"), "{claim}");
    };
    let mapping = |container: &str, resource: &str, request: &str| json!({"containerName": container, "resourceName": resource, "requestName": request});
    let good = mapping("c", "example.com/gpu", "container-0-request-0");
    let claim = |name: &str, mappings: &[&Value]| json!({"resourceClaimName": name, "requestMappings": mappings});
    check(claim("p-extended-resources-x", &[&good]), &[]);
    let at = "status.extendedResourceClaimStatus";
    check(
        claim("", &[]),
        &[
            &format!(
                "{at}.requestMappings: Required value: at least one request mapping is required"
            ),
            &format!("{at}.resourceClaimName: Required value"),
        ],
    );
    check(
        claim("p", &[&mapping("d", "example.com/gpu", "r"), &mapping("c", "example.com/nic", "r")]),
        &[
            &format!(
                "{at}.requestMappings[0].containerName: Invalid value: \"d\": must match the name of an entry in spec.initContainers.name or spec.containers.name"
            ),
            &format!(
                "{at}.requestMappings[1].resourceName: Invalid value: \"example.com/nic\": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"
            ),
        ],
    );
    check(
        claim("p", &[&good, &good]),
        &[
            &format!("{at}.requestMappings[1].containerName: Duplicate value: \"c\""),
            &format!("{at}.requestMappings[1].resourceName: Duplicate value: \"example.com/gpu\""),
            &format!(
                "{at}.requestMappings[1].requestName: Duplicate value: \"container-0-request-0\""
            ),
        ],
    );
}

#[test]
fn device_claims_and_slices() {
    let group = "resource.k8s.io";
    let claims = |requests: &str, wanted: &[&str]| {
        let text = format!("spec: {{devices: {{requests: [{requests}]}}}}");
        check(group, "resourceclaims", &text, wanted);
    };
    claims("{name: a, exactly: {deviceClassName: c}}", &[]);
    claims(
        "{name: a}",
        &[
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    claims(
        "{name: a, exactly: {deviceClassName: c, allocationMode: All, count: 2}}",
        &[
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        ],
    );
    claims(
        "{name: a, exactly: {deviceClassName: c, count: -1}}",
        &["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"],
    );
    claims(
        "{name: a, exactly: {deviceClassName: c}}, {name: a, firstAvailable: [{name: x}]}",
        &[
            "spec.devices.requests[1].name: Duplicate value: \"a\"",
            "spec.devices.requests[1].firstAvailable[0].deviceClassName: Required value",
        ],
    );
    let spec = "spec: {devices: {requests: [{name: a, exactly: {deviceClassName: c}}], \
                constraints: [{requests: [b], matchAttribute: x/y}]}}";
    check(
        group,
        "resourceclaims",
        spec,
        &[
            "spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
        ],
    );
    let of = strategy(group, "resourceclaims");
    let object = created(
        of,
        yaml("spec: {devices: {requests: [{name: a, exactly: {deviceClassName: c}}]}}"),
    );
    assert_eq!(object["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    let mut reserved = object.clone();
    reserved["status"] = json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]});
    assert_eq!(
        lines(&of.validate_status_update(&reserved, &object)),
        "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
    );

    let slices = |more: &str, wanted: &[&str]| {
        let pool = "driver: d.example.com, pool: {name: p, resourceSliceCount: 1}";
        check(group, "resourceslices", &format!("spec: {{{pool}, {more}}}"), wanted);
    };
    slices("nodeName: n1, devices: [{name: a}]", &[]);
    slices(
        "devices: []",
        &[
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ],
    );
    slices(
        "nodeName: n1, allNodes: true",
        &[
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        ],
    );
    slices(
        "allNodes: true, devices: [{name: a}, {name: a}]",
        &["spec.devices[1].name: Duplicate value: \"a\""],
    );
    let slice = |node: &str| {
        format!("spec: {{driver: d, pool: {{name: p, resourceSliceCount: 1}}, nodeName: {node}}}")
    };
    check_update(
        group,
        "resourceslices",
        &slice("a"),
        &slice("b"),
        &["spec.nodeName: Invalid value: \"b\": field is immutable"],
    );
}

#[test]
fn certificate_requests() {
    let (group, plural) = ("certificates.k8s.io", "certificatesigningrequests");
    let told = complaints(
        group,
        plural,
        "spec: {request: '', signerName: x, usages: [odd, signing, signing]}",
    );
    for wanted in [
        "spec.request: Invalid value: \"\": PEM block type must be CERTIFICATE REQUEST",
        "spec.usages[0]: Unsupported value: \"odd\": supported values: \"any\", \"cert sign\"",
        "spec.usages[2]: Duplicate value: \"signing\"",
        "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
    let of = strategy(group, plural);
    let with = |kinds: &[&str]| -> Value {
        let all: Vec<Value> =
            kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        json!({"metadata": {"name": "r"}, "spec": {}, "status": {"conditions": all}})
    };
    let approve = |old: &[&str], new: &[&str]| {
        lines(&of.validate_subresource_update("approval", &with(new), &with(old)))
    };
    assert_eq!(approve(&[], &["Approved"]), "");
    assert_eq!(
        approve(&[], &["Approved", "Denied"]),
        "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
    );
    assert_eq!(
        approve(&["Denied"], &[]),
        "status.conditions: Forbidden: updates may not remove a condition of type \"Denied\""
    );
    // The status neither approves nor takes an approval back.
    let status = |old: &[&str], new: &[&str]| {
        let mut new = with(new);
        of.prepare_for_status_update(&mut new, &with(old));
        let all = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(status(&[], &["Approved", "Failed"]), ["Failed"]);
    assert_eq!(status(&["Approved"], &["Failed"]), ["Failed", "Approved"]);
}
