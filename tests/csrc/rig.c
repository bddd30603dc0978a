#include "rig.h"

#include <stdio.h>
#include <string.h>

#include "check.h"

void rig_open(sampler_rig *rig, const char *sources, uint64_t interval_ns,
              uint32_t samples_per_window)
{
    rig_prepare(rig);
    rig_create(rig, sources, interval_ns, samples_per_window);
}

void rig_prepare(sampler_rig *rig)
{
    memset(rig, 0, sizeof *rig);
    tree_create(&rig->tree);
    fake_clock_init(&rig->clock);
    rig_set_cpu(rig, 1000, 9000);
    rig_set_memory(rig, 250, 1000);
    rig_set_network(rig, 1000000, 2000000);
}

void rig_create(sampler_rig *rig, const char *sources, uint64_t interval_ns,
                uint32_t samples_per_window)
{
    rig->interval_ns = interval_ns;
    const smn_options options = {
        .interval_ns = interval_ns,
        .samples_per_window = samples_per_window,
        .procfs_path = rig->tree.path,
        .sysfs_path = rig->tree.path,
        .sources = sources,
        .disk_paths = "/",
        .overhead_budget = rig->overhead_budget,
    };
    char error[SMN_ERROR_TEXT_BYTES] = "";
    int code = smn_sampler_create_with_clock(&options, &rig->clock.clock, &rig->sampler, error);
    CHECK_TEXT(error, "");
    REQUIRE(code == 0);
    rig->series_count = smn_sampler_series_count(rig->sampler);
    REQUIRE(rig->series_count > 0 && rig->series_count <= RIG_MOST_SERIES);
}

void rig_close(sampler_rig *rig)
{
    smn_sampler_destroy(rig->sampler);
    tree_destroy(&rig->tree);
}

void rig_set_cpu(const sampler_rig *rig, uint64_t busy, uint64_t idle)
{
    char text[256];
    snprintf(text, sizeof text, "cpu  %llu 0 0 %llu 0 0 0 0 0 0\nctxt 1\n",
             (unsigned long long)busy, (unsigned long long)idle);
    tree_write_text(&rig->tree, "stat", text);
}

void rig_set_memory(const sampler_rig *rig, uint64_t used_kib, uint64_t total_kib)
{
    char text[256];
    snprintf(text, sizeof text, "MemTotal: %llu kB\nMemFree: 0 kB\nMemAvailable: %llu kB\n",
             (unsigned long long)total_kib, (unsigned long long)(total_kib - used_kib));
    tree_write_text(&rig->tree, "meminfo", text);
}

void rig_set_network(const sampler_rig *rig, uint64_t received, uint64_t sent)
{
    char text[256];
    snprintf(text, sizeof text, "eth0: %llu 1 0 0 0 0 0 0 %llu 1 0 0 0 0 0 0\n",
             (unsigned long long)received, (unsigned long long)sent);
    tree_write_text(&rig->tree, "net/dev", text);
}

void rig_tick(sampler_rig *rig, int count)
{
    for (int i = 0; i < count; i++)
        fake_clock_advance(&rig->clock, rig->interval_ns);
}

int rig_take(sampler_rig *rig)
{
    return smn_sampler_next_window(rig->sampler, 0, 1, &rig->window, rig->statistics);
}

const smn_statistics *rig_statistics(const sampler_rig *rig, const char *key)
{
    for (int i = 0; i < rig->series_count; i++) {
        smn_series_info info;
        REQUIRE(smn_sampler_series(rig->sampler, i, &info) == 0);
        if (strcmp(info.key, key) == 0)
            return &rig->statistics[i];
    }
    REQUIRE(!"a series with this key");
    return NULL;
}

smn_source_stats rig_source(const sampler_rig *rig, const char *name)
{
    smn_source_stats stats = {0};
    for (int i = 0; i < smn_sampler_sources(rig->sampler); i++) {
        REQUIRE(smn_sampler_source_stats(rig->sampler, i, &stats) == 0);
        if (strcmp(stats.name, name) == 0)
            return stats;
    }
    REQUIRE(!"a source with this name");
    return stats;
}
