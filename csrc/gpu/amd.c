#include "amd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void smn_amd_format_address(uint64_t address, char *text)
{
    *text = '\0';
    if (address != SMN_AMD_NO_ADDRESS)
        snprintf(text, SMN_GPU_TEXT_BYTES, "%04" PRIx64 ":%02x:%02x.%x", address >> 16,
                 (unsigned)(address >> 8 & 0xff), (unsigned)(address >> 3 & 0x1f),
                 (unsigned)(address & 0x7));
}

uint64_t smn_amd_parse_address(const char *text)
{
    unsigned domain, bus, device, function;
    int length = 0;
    int fields = sscanf(text, "%8x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &length);
    if (fields != 4 || text[length] != '\0' || device > 0x1f || function > 0x7)
        return SMN_AMD_NO_ADDRESS;
    return (uint64_t)domain << 16 | bus << 8 | device << 3 | function;
}

void smn_amd_format_uuid(uint64_t unique_id, char *text)
{
    *text = '\0';
    if (unique_id != 0 && unique_id != UINT64_MAX)
        snprintf(text, SMN_GPU_TEXT_BYTES, "GPU-%016" PRIx64, unique_id);
}

void smn_amd_copy_text(char *to, const char *field, size_t size)
{
    size_t length = 0;
    for (size_t i = 0; i < size && field[i] != '\0' && length < SMN_GPU_TEXT_BYTES - 1; i++)
        if (field[i] >= ' ' && field[i] <= '~' && (length > 0 || field[i] != ' '))
            to[length++] = field[i];
    while (length > 0 && to[length - 1] == ' ')
        length--;
    to[length] = '\0';
}

const char *const *smn_amd_folders(const char *folders[SMN_AMD_MOST_FOLDERS],
                                   char rocm[SMN_AMD_FOLDER_BYTES])
{
    int count = 0;
    const char *path = secure_getenv("ROCM_PATH");
    if (path != NULL && *path == '/') {
        int length = snprintf(rocm, SMN_AMD_FOLDER_BYTES, "%s/lib", path);
        if (length > 0 && length < SMN_AMD_FOLDER_BYTES)
            folders[count++] = rocm;
    }
    folders[count++] = "/opt/rocm/lib";
    folders[count] = NULL;
    return folders;
}

void smn_amd_device_init(smn_amd_device *device, uint64_t address, const void *others, int count,
                         size_t stride)
{
    *device = (smn_amd_device){.address = address, .has_sensors = true};
    for (int i = 0; i < count && address != SMN_AMD_NO_ADDRESS; i++) {
        const smn_amd_device *other =
            (const void *)((const unsigned char *)others + (size_t)i * stride);
        /* The functions of one card are its partitions. */
        if (other->address != SMN_AMD_NO_ADDRESS && other->address >> 3 == address >> 3)
            device->has_sensors = false;
    }
}

int smn_amd_outcome(smn_amd_device *device, int call, int error)
{
    uint32_t bit = UINT32_C(1) << call;
    if (error == 0)
        device->worked |= bit;
    else if ((device->worked & bit) != 0 && (error == -ENOTSUP || error == -EACCES))
        error = -EIO;
    return error;
}
