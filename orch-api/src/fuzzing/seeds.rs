//! Inputs to begin with: what a client would send.

use super::patches::SEPARATOR;

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"app":"web"},
"annotations":{"note":"x"},"finalizers":["example.com/keep"]},"spec":{"terminationGracePeriodSeconds":5,
"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":80,"name":"http"}],
"env":[{"name":"A","value":"1"},{"name":"B","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],
"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"1Gi"}},
"volumeMounts":[{"name":"v","mountPath":"/v"}],"livenessProbe":{"httpGet":{"path":"/","port":"http"}}}],
"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Gi"}}],"nodeSelector":{"disk":"ssd"},
"tolerations":[{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":3}]}}"#;

const TEMPLATE: &str =
    r#"{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;

const DEFINITION: &str = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
"metadata":{"name":"things.fuzz.example.com"},"spec":{"group":"fuzz.example.com","scope":"Namespaced",
"names":{"plural":"things","kind":"Thing","shortNames":["th"]},"versions":[{"name":"v1","served":true,
"storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},
"additionalPrinterColumns":[{"name":"N","type":"integer","jsonPath":".spec.n"}],
"selectableFields":[{"jsonPath":".spec.s"}],
"schema":{"openAPIV3Schema":{"type":"object","properties":{
"spec":{"type":"object","required":["n"],"properties":{
"n":{"type":"integer","minimum":0,"maximum":10,"default":3},
"s":{"type":"string","pattern":"^a+$","maxLength":9,"default":"a"},"t":{"type":"string","format":"date-time","nullable":true},
"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"maxItems":4,
"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"},"v":{"x-kubernetes-int-or-string":true}}}},
"any":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
"m":{"type":"object","additionalProperties":{"type":"number","multipleOf":0.5}},
"one":{"type":"object","properties":{"x":{"type":"integer"}},"oneOf":[{"required":["x"]},{"not":{"required":["x"]}}]}}},
"status":{"type":"object","properties":{"n":{"type":"integer"}}}}}}}]}}"#;

const THING: &str = r#"{"apiVersion":"fuzz.example.com/v1","kind":"Thing","metadata":{"name":"x"},
"spec":{"n":1,"s":"aa","l":[{"k":"a","v":1},{"k":"b","v":"2"}],"any":{"deep":[1,2.5,null,{"y":true}]},
"set":["a","b"],"m":{"q":1.5},"one":{"x":1}}}"#;

/// Paths and objects, of which each is created, replaced, patched and deleted.
const OBJECTS: [(&str, &str); 22] = [
    ("/api/v1/namespaces/default/pods", POD),
    (
        "/api/v1/namespaces/default/configmaps",
        r#"{"metadata":{"name":"a"},"data":{"k":"v"},"binaryData":{"b":"AAE="},"immutable":false}"#,
    ),
    (
        "/api/v1/namespaces/default/secrets",
        r#"{"metadata":{"name":"a"},"type":"Opaque","data":{"k":"dg=="},"stringData":{"s":"t"}}"#,
    ),
    (
        "/api/v1/namespaces/default/services",
        r#"{"metadata":{"name":"a"},"spec":{"type":"NodePort","selector":{"app":"web"},"ports":[{"name":"http","port":80,"targetPort":"http","nodePort":30080}],"externalIPs":["1.2.3.4"],"sessionAffinity":"ClientIP"}}"#,
    ),
    ("/api/v1/namespaces", r#"{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{}}"#),
    (
        "/api/v1/nodes",
        r#"{"metadata":{"name":"a"},"spec":{"podCIDR":"10.0.0.0/24","taints":[{"key":"k","effect":"NoSchedule"}]},"status":{"capacity":{"cpu":"4","memory":"8Gi"}}}"#,
    ),
    (
        "/api/v1/namespaces/default/persistentvolumeclaims",
        r#"{"metadata":{"name":"a"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}},"storageClassName":"x"}}"#,
    ),
    (
        "/api/v1/persistentvolumes",
        r#"{"metadata":{"name":"a"},"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"hostPath":{"path":"/d"},"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"Gt","values":["1"]}]}]}}}}"#,
    ),
    (
        "/api/v1/namespaces/default/limitranges",
        r#"{"metadata":{"name":"a"},"spec":{"limits":[{"type":"Container","default":{"cpu":"1"},"max":{"cpu":"2"},"min":{"cpu":"1m"}}]}}"#,
    ),
    (
        "/api/v1/namespaces/default/resourcequotas",
        r#"{"metadata":{"name":"a"},"spec":{"hard":{"pods":"2","requests.cpu":"1","count/configmaps":"9"},"scopes":["NotTerminating"]}}"#,
    ),
    (
        "/api/v1/namespaces/default/events",
        r#"{"metadata":{"name":"a"},"involvedObject":{"kind":"Pod","name":"a","namespace":"default"},"reason":"R","message":"m","type":"Normal","count":2,"firstTimestamp":"2026-01-01T00:00:00Z"}"#,
    ),
    (
        "/apis/apps/v1/namespaces/default/deployments",
        r#"{"metadata":{"name":"a"},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"web"}},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"template":TEMPLATE}}"#,
    ),
    (
        "/apis/apps/v1/namespaces/default/statefulsets",
        r#"{"metadata":{"name":"a"},"spec":{"serviceName":"s","selector":{"matchExpressions":[{"key":"app","operator":"In","values":["web"]}]},"template":TEMPLATE,"volumeClaimTemplates":[{"metadata":{"name":"v"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}]}}"#,
    ),
    (
        "/apis/batch/v1/namespaces/default/cronjobs",
        r#"{"metadata":{"name":"a"},"spec":{"schedule":"*/5 * * * *","timeZone":"Europe/Berlin","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}"#,
    ),
    (
        "/apis/batch/v1/namespaces/default/jobs",
        r#"{"metadata":{"name":"a"},"spec":{"completions":3,"parallelism":2,"activeDeadlineSeconds":5,"backoffLimit":1,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    (
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
        r#"{"metadata":{"name":"a"},"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}"#,
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        r#"{"metadata":{"name":"a"},"spec":{"rules":[{"host":"*.x.io","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"a","port":{"number":80}}}}]}}],"tls":[{"hosts":["x.io"],"secretName":"s"}]}}"#,
    ),
    (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        r#"{"metadata":{"name":"a"},"spec":{"minAvailable":"50%","selector":{"matchLabels":{"app":"web"}}}}"#,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        r#"{"metadata":{"name":"a:b"},"rules":[{"apiGroups":["*"],"resources":["pods/log"],"verbs":["get"]},{"nonResourceURLs":["/x/*"],"verbs":["get"]}],"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]}}"#,
    ),
    (
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        r#"{"metadata":{"name":"a"},"spec":{"holderIdentity":"h","leaseDurationSeconds":15,"renewTime":"2026-01-01T00:00:00.000000Z"}}"#,
    ),
    (
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
        r#"{"metadata":{"name":"a"},"spec":{"matchingPrecedence":10,"priorityLevelConfiguration":{"name":"p"},"distinguisherMethod":{"type":"ByUser"},"rules":[{"subjects":[{"kind":"User","user":{"name":"*"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"]}]}]}}"#,
    ),
    ("/apis/fuzz.example.com/v1/namespaces/default/widgets", THING),
];

/// What a cluster has before anybody tries to break it, as requests.
pub(super) fn cluster() -> Vec<Vec<u8>> {
    let widgets = DEFINITION.replace("things", "widgets").replace("Thing", "Widget");
    let widgets = widgets.replace("\"th\"", "\"wd\"");
    let account = r#"{"metadata":{"name":"default"}}"#;
    [
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &*widgets),
        ("/api/v1/namespaces/default/serviceaccounts", account),
    ]
    .map(|(path, body)| format!("POST {path}\n{body}").into_bytes())
    .into()
}

/// The objects of the corpus: the path of the collection, and the object.
pub(super) fn objects() -> Vec<(&'static str, String)> {
    let object = |(path, text): (&'static str, &str)| {
        let text = text.replace("TEMPLATE", TEMPLATE);
        let custom = path.contains("widgets");
        (path, if custom { text.replace("Thing", "Widget") } else { text })
    };
    OBJECTS.map(object).into()
}

/// Inputs to begin with for a target of [`super::TARGETS`]; none for an unknown name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let lines = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    match target {
        "bodies" => bodies(),
        "queries" => lines(&[
            "labelSelector=a%3Db&fieldSelector=metadata.name%3Dx&limit=5&continue=abc",
            "watch=true&timeoutSeconds=10&allowWatchBookmarks=1&sendInitialEvents=true",
            "resourceVersion=12&resourceVersionMatch=Exact&dryRun=All&fieldManager=me&force=true",
            "gracePeriodSeconds=9&propagationPolicy=Orphan&fieldValidation=Strict&pretty=true",
        ]),
        "selectors" => lines(&[
            "a=b,c!=d,e in (f,g),!h,i notin (j),k>1,l<2,example.com/m==n",
            "metadata.name=a,spec.nodeName!=b,status.phase=x\\,y\\=z",
        ]),
        "patches" => patches(),
        "paths" => lines(&[
            "/apis/apps/v1/namespaces/default/deployments/a/scale",
            "/api/v1/watch/namespaces/a/pods/b",
            "/api/v1/namespaces/default/services/https:a:443/proxy/x%2Fy?z",
        ]),
        "accept_headers" => lines(&[
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5, */*",
            "application/vnd.kubernetes.protobuf",
        ]),
        "delete_options" => lines(&[
            "\0{\"kind\":\"DeleteOptions\",\"gracePeriodSeconds\":3,\"propagationPolicy\":\"Orphan\",\
             \"preconditions\":{\"uid\":\"u\",\"resourceVersion\":\"1\"},\"dryRun\":[\"All\"]}",
            "\u{1}orphanDependents: true\n",
        ]),
        "continue_tokens" => lines(&[
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
        ]),
        "schemas" => vec![[DEFINITION.as_bytes(), &[SEPARATOR], THING.as_bytes()].concat()],
        "requests" => objects().iter().map(|(path, text)| script(path, text, text)).collect(),
        _ => Vec::new(),
    }
}

fn bodies() -> Vec<Vec<u8>> {
    let mut all =
        vec![b"\x01a: &x [1, 2]\nb: *x\nc: |\n  text\nd: {e: ~, f: 0x1F, g: 1e3}\n".to_vec()];
    for (_, text) in objects() {
        all.push([b"\0", text.as_bytes()].concat());
        let value = serde_json::from_str(&text).unwrap_or_default();
        if let Ok(encoded) = orch_core::protobuf::encode(&value) {
            all.push([&[2], encoded.as_slice()].concat());
        }
    }
    all
}

fn patches() -> Vec<Vec<u8>> {
    let patches = [
        r#"[{"op":"add","path":"/spec/containers/-","value":{"name":"d"}},{"op":"copy","from":"/spec","path":"/x"},{"op":"test","path":"/kind","value":"Pod"},{"op":"move","from":"/x","path":"/y"},{"op":"remove","path":"/y"}]"#,
        r#"{"metadata":{"labels":{"app":null,"new":"x"}},"spec":{"containers":[{"name":"z"}]}}"#,
        r#"{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"d","image":"j"},{"name":"c","ports":[{"$patch":"delete","containerPort":80}]}],"volumes":[{"$retainKeys":["name","hostPath"],"name":"v","hostPath":{"path":"/"}}]},"metadata":{"$deleteFromPrimitiveList/finalizers":["example.com/keep"]}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"k","ports":[{"containerPort":81}]}]}}"#,
    ];
    let patch = |(kind, text): (u8, &str)| {
        [&[kind], POD.as_bytes(), &[SEPARATOR], text.as_bytes()].concat()
    };
    (0..).zip(patches).map(patch).collect()
}

/// What a client does with one object in its life.
pub(super) fn script(path: &str, first: &str, second: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(second).unwrap_or_default();
    let name = value["metadata"]["name"].as_str().unwrap_or("a").to_owned();
    let separator = char::from(SEPARATOR);
    let one = format!("{path}/{name}");
    [
        format!("POST {path}\n{first}"),
        format!("PUT {one}\n{second}"),
        format!("PUT {one}/status\n{second}"),
        format!("PATCH {one} application/merge-patch+json\n{second}"),
        format!("PATCH {one} application/strategic-merge-patch+json\n{second}"),
        format!("PATCH {one}?fieldManager=f&force=true application/apply-patch+yaml\n{first}"),
        format!("GET {path}?labelSelector=app%3Dweb&limit=1"),
        format!("GET {path}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        format!("DELETE {one}?dryRun=All"),
        format!("DELETE {one}\n{{\"gracePeriodSeconds\":10}}"),
    ]
    .join(&separator.to_string())
    .into_bytes()
}
